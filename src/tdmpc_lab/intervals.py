"""Confidence intervals of shares and means. Standard library only."""

from __future__ import annotations

from math import pi, sqrt, tan
from statistics import NormalDist


def wilson(successes: int, trials: int, confidence: float = 0.95) -> tuple[float, float]:
    """The Wilson score interval of a share (Wilson 1927): unlike mean ± error it stays within 0 and 1, and says
    something at 0 and at all of few trials. (0, 1) without a trial."""
    if trials == 0:
        return 0.0, 1.0
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    share = successes / trials
    centre = share + z * z / (2 * trials)
    margin = z * sqrt(share * (1 - share) / trials + z * z / (4 * trials * trials))
    scale = 1 + z * z / trials
    low = 0.0 if successes == 0 else (centre - margin) / scale  # exactly, whatever the rounding
    high = 1.0 if successes == trials else (centre + margin) / scale
    return low, high


def mean_interval(mean: float, std: float, count: int) -> tuple[float, float] | None:
    """The 95 % interval of a mean by Student's t, from the standard deviation over all `count` values (divided by
    `count`, as numpy has it). None below two values, which say nothing of their spread."""
    if count < 2:
        return None
    margin = student_t(count - 1) * std / sqrt(count - 1)
    return mean - margin, mean + margin


def student_t(degrees: int, confidence: float = 0.95) -> float:
    """The t beyond which lies 1 − confidence on both sides together.

    Exact for one and two degrees of freedom; above by the first terms of its series around the normal distribution
    (Fisher and Cornish 1960), at 95 % within 1 %.
    """
    if degrees == 1:
        return tan(pi * confidence / 2)
    if degrees == 2:
        return confidence * sqrt(2.0 / (1.0 - confidence * confidence))
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
    )
    return z + sum(term / float(degrees) ** power for power, term in enumerate(terms, start=1))
