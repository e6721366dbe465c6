"""Encoder presets: one YAML file each, read by :mod:`mmalign.encoders.presets`."""
