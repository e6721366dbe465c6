"""Search spaces: one YAML file per model, read by :mod:`mmalign.benchmark.space`."""
