"""A fitted model with its ids, seen items and content: it recommends, saves and loads."""

from __future__ import annotations

from mmalign.recommender.explanation import Explanation, Neighbour
from mmalign.recommender.recommender import Recommender

__all__ = ["Explanation", "Neighbour", "Recommender"]
