from __future__ import annotations

import pytest
from scipy.stats import binomtest, t

from tdmpc_lab.intervals import mean_interval, student_t, wilson


@pytest.mark.parametrize(("wins", "games"), [(0, 1), (1, 1), (0, 20), (20, 20), (7, 20), (104, 200), (1, 5000)])
@pytest.mark.parametrize("confidence", [0.8, 0.95, 0.99])
def test_as_scipy_has_it(wins: int, games: int, confidence: float) -> None:
    expected = binomtest(wins, games).proportion_ci(confidence, method="wilson")
    assert wilson(wins, games, confidence) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_by_hand() -> None:
    """8 of 10 at 95 %: the textbook's 0.49 to 0.94."""
    assert wilson(8, 10) == pytest.approx((0.4902, 0.9433), abs=1e-4)


def test_without_a_game_anything_is_possible() -> None:
    assert wilson(0, 0) == (0.0, 1.0)


@pytest.mark.parametrize("degrees", [1, 2, 3, 4, 9, 19, 999])
def test_student_t_as_scipy_has_it(degrees: int) -> None:
    assert student_t(degrees) == pytest.approx(t.ppf(0.975, degrees), rel=0.01)


def test_the_interval_of_a_mean() -> None:
    """1, 2, 3: standard error 1/√3, t of two degrees 4.303."""
    assert mean_interval(2.0, (2 / 3) ** 0.5, 3) == pytest.approx((-0.4841, 4.4841), abs=1e-4)
    assert mean_interval(2.0, 0.0, 1) is None
