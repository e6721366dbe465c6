"""Features: content encoded once, kept by what it is and by what encoded it."""

from __future__ import annotations

from mmalign.features.build import BuildReport, ModalityReport, Problem, build_features
from mmalign.features.cache import FeatureCache

__all__ = ["BuildReport", "FeatureCache", "ModalityReport", "Problem", "build_features"]
