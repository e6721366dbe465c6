"""Whether one model is really better: paired bootstrap over users, and Holm's correction.

Pure maths: arrays in, numbers out. Two models are compared on the same users, so what is resampled
is each user's difference. Where a model ran under several seeds, a user's value is the mean over
them: the question is about users not seen yet, not about the luck of a seed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import t as student

from mmalign.errors import ConfigError, DataError

__all__ = ["Bootstrap", "holm", "paired_bootstrap", "resampled_t"]

_ENTRIES = 2**22
"""Resampled users that are held at a time: what bounds the memory, to about 100 MB."""


@dataclass(frozen=True)
class Bootstrap:
    """Mean differences and how far chance reaches around them.

    Shapes:
        mean, low, high, p: ``[M]``, one entry per comparison.

    Attributes:
        mean: Mean difference over users.
        low: Lower end of the percentile interval.
        high: Upper end.
        p: Two-sided p-value of a mean difference of zero, not corrected for many comparisons.
    """

    mean: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    p: NDArray[np.float64]


def paired_bootstrap(
    differences: ArrayLike, *, samples: int = 10_000, level: float = 0.95, seed: int = 0
) -> Bootstrap:
    r"""Resample users with replacement and look where the mean difference falls.

    The interval is the percentile interval of the resampled means. The p-value turns it round:
    with :math:`n_-` of :math:`n` means at or below zero and :math:`n_+` at or above,
    :math:`p = 2 \min(n_- + 1, n_+ + 1) / (n + 1)`, at most 1 (Efron and Tibshirani, An
    Introduction to the Bootstrap, 1993, chapters 13 and 16; the one that is added keeps a p of
    zero from being claimed). All comparisons share the resamples. Of fewer than some hundred users,
    or where few of many differ at all, the interval is too narrow.

    Args:
        differences: Metric of one model less that of another, per user and comparison.
        samples: Resamples; the smallest possible p is ``2 / (samples + 1)``.
        level: Of the interval.
        seed: Of the draw.

    Shapes:
        differences: ``[B]`` or ``[B, M]``

    Raises:
        ConfigError: ``samples`` is below 1 or ``level`` is not between 0 and 1.
        DataError: There is no user, or a difference is not finite.

    Example:
        >>> found = paired_bootstrap([0.1, 0.2, 0.3, 0.2], samples=999)
        >>> [round(float(x[0]), 3) for x in (found.mean, found.low, found.high, found.p)]
        [0.2, 0.125, 0.275, 0.002]
    """
    if samples < 1:
        raise ConfigError("samples must be at least 1", got=samples, fix="pass 10000")
    if not 0 < level < 1:
        raise ConfigError("level must lie between 0 and 1", got=level, fix="pass 0.95")
    values = np.asarray(differences, dtype=np.float64)
    values = values[:, None] if values.ndim == 1 else values
    if values.ndim != 2 or len(values) == 0 or not np.isfinite(values).all():
        raise DataError(
            "differences must be finite, one row per user", got=values.shape, fix="check the users"
        )
    means = _resampled_means(values, samples, np.random.default_rng(seed))
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2], axis=0)
    below, above = (means <= 0).sum(axis=0), (means >= 0).sum(axis=0)
    p = np.minimum(1.0, 2 * (np.minimum(below, above) + 1) / (samples + 1))
    return Bootstrap(values.mean(axis=0), low, high, p)


def holm(p: ArrayLike) -> NDArray[np.float64]:
    """Correct p-values for being many, so that the chance of any false claim stays at the level.

    The smallest is multiplied by their number, the next by one less, and so on, none below an
    earlier one (Holm, A simple sequentially rejective multiple test procedure, 1979).

    Shapes:
        p: ``[M]``, the whole family; returns ``[M]`` in the same order, at most 1.

    Raises:
        DataError: A value is not a probability.

    Example:
        >>> holm([0.01, 0.04, 0.03])
        array([0.03, 0.06, 0.06])
    """
    values = np.asarray(p, dtype=np.float64)
    if values.ndim != 1 or not ((values >= 0) & (values <= 1)).all():
        raise DataError("p-values must lie between 0 and 1", got=p, fix="pass a list of them")
    order = np.argsort(values, kind="stable")
    stepped = values[order] * np.arange(len(values), 0, -1)
    corrected = np.empty_like(values)
    corrected[order] = np.minimum(1.0, np.maximum.accumulate(stepped))
    return corrected


def resampled_t(differences: ArrayLike, test_per_train: float) -> tuple[float, float]:
    """Standard error and two-sided p of a mean difference over folds that train on shared rows.

    Folds that learn from mostly the same rows err alike, and a plain t-test takes them for
    independent. The corrected one widens the variance of the mean from ``s^2 / k`` to
    ``s^2 (1 / k + n_test / n_train)`` (Nadeau and Bengio, Inference for the generalization error,
    Machine Learning 52, 2003).

    Args:
        differences: Of two models, one per fold, ``[K]``.
        test_per_train: Size of what is held out by the size of what is learned from.

    Raises:
        DataError: There are fewer than two folds.

    Example:
        >>> error, p = resampled_t([0.01, 0.02, 0.03], test_per_train=0.5)
        >>> round(error, 4), round(p, 3)
        (0.0091, 0.16)
    """
    values = np.asarray(differences, dtype=np.float64)
    if values.ndim != 1 or len(values) < 2:
        raise DataError("a t-test needs two folds or more", got=values.shape, fix="add folds")
    error = float(values.std(ddof=1) * np.sqrt(1 / len(values) + test_per_train))
    if error == 0:
        return 0.0, float(values.mean() == 0)
    return error, float(2 * student.sf(abs(values.mean()) / error, len(values) - 1))


def _resampled_means(
    values: NDArray[np.float64], samples: int, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Means of each resample, ``[samples, M]``, block by block."""
    users = len(values)
    size = max(1, _ENTRIES // users)
    blocks = []
    for start in range(0, samples, size):
        count = min(size, samples - start)
        drawn = rng.integers(0, users, (count, users)) + users * np.arange(count)[:, None]
        times = np.bincount(drawn.ravel(), minlength=count * users).reshape(count, users)
        blocks.append(times @ values / users)
    return np.concatenate(blocks)
