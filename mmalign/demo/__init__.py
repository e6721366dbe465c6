"""A small shop, generated: drawn pictures, composed texts, and shoppers with tastes."""

from __future__ import annotations

from mmalign.demo.shop import generate_shop

__all__ = ["generate_shop"]
