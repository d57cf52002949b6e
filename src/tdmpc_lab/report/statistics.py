"""What a few seeds say of a config: interquartile means, their bootstrap intervals, the probability of improvement.

After Agarwal et al. 2021, "Deep Reinforcement Learning at the Edge of the Statistical Precipice". Scores come in
strata: runs that are alike but for their seed, one array of shape (runs,) each. A comparison on one task has one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Scores = NDArray[np.float64]

ENOUGH_SEEDS = 5
"""With fewer the interval is far too narrow: of normal data it holds the true value in 74 of 100 cases with 3 seeds, in
90 with 5, in 93 with 10, where it should in 95 (`docs/compare.md`)."""
RESAMPLES = 5_000
CURVE_RESAMPLES = 1_000
CONFIDENCE = 0.95
_TRIMMED = 0.25  # of the scores at either end


class Estimate(NamedTuple):
    """A figure with its 95 % interval; no interval where a stratum has a single run."""

    value: float
    low: float | None = None
    high: float | None = None


def iqm(scores: Scores, axis: int = -1) -> Scores:
    """The interquartile mean: the mean of the middle half. Of fewer than four scores the plain mean."""
    from scipy.stats import trim_mean

    return np.asarray(trim_mean(scores, _TRIMMED, axis=axis))


def iqm_of(strata: Sequence[Scores], *, resamples: int = RESAMPLES) -> Estimate:
    """The IQM over all runs, with its stratified bootstrap interval: runs are drawn again within their stratum."""

    def of_all(*drawn: Scores, axis: int = -1) -> Scores:
        return iqm(np.concatenate(drawn, axis=axis), axis)

    return _estimate(of_all, strata, resamples)


def improvement(over: Sequence[Scores], strata: Sequence[Scores], *, resamples: int = RESAMPLES) -> Estimate:
    """The probability that a run of `strata` is better than one of `over`: within each stratum over all pairs, equal
    ones counting half (Mann and Whitney's U by the number of pairs), then the mean of the strata.

    Raises ValueError where the two have not the same number of strata.
    """
    if len(over) != len(strata):
        raise ValueError(f"{len(over)} strata against {len(strata)}")

    def mean_of_strata(*drawn: Scores, axis: int = -1) -> Scores:
        pairs = zip(drawn[: len(over)], drawn[len(over) :], strict=True)
        return np.asarray(np.mean([_wins(old, new, axis) for old, new in pairs], axis=0))

    return _estimate(mean_of_strata, [*over, *strata], resamples)


def _wins(old: Scores, new: Scores, axis: int) -> Scores:
    """The share of pairs in which the new one is the larger, along the axis of the runs."""
    one, other = np.moveaxis(old, axis, -1)[..., None, :], np.moveaxis(new, axis, -1)[..., :, None]
    return np.asarray(((other > one) + 0.5 * (other == one)).mean(axis=(-2, -1)))


def iqm_curve(values: Scores) -> tuple[Scores, Scores | None, Scores | None]:
    """The IQM at every point of curves (runs, points), and the ends of its intervals, (points,) each: runs are drawn
    as wholes. No intervals of a single run."""
    middle = iqm(values, axis=0)
    if len(values) < 2:
        return middle, None, None
    low, high = _interval(lambda drawn, axis=-1: iqm(drawn, axis), [values.T], CURVE_RESAMPLES)
    return middle, low, high


def _estimate(statistic: Callable[..., Scores], samples: Sequence[Scores], resamples: int) -> Estimate:
    value = float(statistic(*samples))
    if any(len(sample) < 2 for sample in samples):
        return Estimate(value)
    low, high = _interval(statistic, samples, resamples)
    return Estimate(value, float(low), float(high))


def _interval(statistic: Callable[..., Scores], samples: Sequence[Scores], resamples: int) -> tuple[Scores, Scores]:
    """The percentile bootstrap interval, runs along the last axis; the same samples always give the same one."""
    from scipy.stats import bootstrap

    found = bootstrap(
        samples,
        statistic,
        axis=-1,
        n_resamples=resamples,
        vectorized=True,
        confidence_level=CONFIDENCE,
        method="percentile",
        batch=max(1, 4_000_000 // max(1, sum(sample.size for sample in samples))),
        rng=np.random.default_rng(0),
    ).confidence_interval
    return np.asarray(found.low), np.asarray(found.high)
