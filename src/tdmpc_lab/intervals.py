"""Confidence intervals of shares. Standard library only."""

from __future__ import annotations

from math import sqrt
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
