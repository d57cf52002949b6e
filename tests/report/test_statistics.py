"""Estimates and intervals against values worked out by hand, and against distributions whose true value is known."""

from __future__ import annotations

import numpy as np
import pytest

from tdmpc_lab.report.statistics import Estimate, improvement, iqm, iqm_curve, iqm_of


def test_interquartile_means_by_hand():
    assert iqm(np.array([1.0, 2.0, 3.0])) == 2.0  # fewer than four: the mean
    assert iqm(np.array([-1000.0, 2.0, 4.0, 1000.0])) == 3.0
    assert iqm(np.array([9.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, -7.0])) == pytest.approx((2 + 3 + 4 + 5) / 4)
    assert iqm(np.array([[1.0, 10.0], [3.0, 30.0]]), axis=0).tolist() == [2.0, 20.0]


def test_one_run_has_no_interval_and_equal_runs_one_of_no_width():
    assert iqm_of([np.array([3.5])]) == Estimate(3.5, None, None)
    assert iqm_of([np.array([3.5, 3.5, 3.5])]) == Estimate(3.5, 3.5, 3.5)
    assert iqm_of([np.array([1.0, 2.0]), np.array([3.0])]) == Estimate(2.0, None, None)


def test_the_same_scores_always_give_the_same_interval():
    scores = [np.random.default_rng(7).normal(size=6)]
    assert iqm_of(scores) == iqm_of(scores)


@pytest.mark.parametrize("draw", ["normal", "uniform"])
@pytest.mark.parametrize(("seeds", "least", "most"), [(3, 0.62, 0.82), (5, 0.80, 0.95), (10, 0.89, 0.98)])
def test_how_often_the_interval_holds_the_true_value(draw: str, seeds: int, least: float, most: float):
    """Both distributions are symmetric about 10, which so is their IQM. Of few seeds the interval is too narrow."""
    random = np.random.default_rng(42)
    times = 250
    held = 0
    for _ in range(times):
        scores = random.normal(10, 2, seeds) if draw == "normal" else random.uniform(5, 15, seeds)
        _, low, high = iqm_of([scores], resamples=600)
        held += low <= 10 <= high
    assert least <= held / times <= most


def test_strata_are_drawn_within_themselves():
    """Two tasks far apart, each alike for all seeds: drawn together the interval would span from one to the other."""
    apart = [np.full(5, 0.0), np.full(5, 100.0)]
    estimate = iqm_of(apart)
    assert estimate == Estimate(50.0, 50.0, 50.0)
    together = iqm_of([np.concatenate(apart)])
    assert together.low < 20 and together.high > 80


def test_probability_of_improvement_by_hand():
    one, other = np.array([1.0, 2.0, 3.0]), np.array([2.0, 4.0])
    # of six pairs: 2>1, 2=2, 2<3, 4>1, 4>2, 4>3
    assert improvement([one], [other]).value == pytest.approx(4.5 / 6)
    assert improvement([other], [one]).value == pytest.approx(1.5 / 6)
    assert improvement([one], [one]).value == 0.5
    apart = improvement([one], [one + 10])
    assert apart == Estimate(1.0, 1.0, 1.0)
    mean = improvement([one, one], [one + 10, one - 10])
    assert mean == Estimate(0.5, 0.5, 0.5)
    with pytest.raises(ValueError, match="1 strata against 2"):
        improvement([one], [one, one])


def test_probability_of_improvement_against_two_normal_distributions():
    """P(Y > X) of N(0, 1) and N(1, 1) is Φ(1/√2) = 0.760."""
    random = np.random.default_rng(1)
    times, held = 150, 0
    for _ in range(times):
        _, low, high = improvement([random.normal(0, 1, 15)], [random.normal(1, 1, 15)], resamples=500)
        held += low <= 0.760 <= high
    assert 0.87 <= held / times <= 1.0
    large = improvement([random.normal(0, 1, 2000)], [random.normal(1, 1, 2000)], resamples=2)
    assert large.value == pytest.approx(0.760, abs=0.015)


def test_curves_are_estimated_point_by_point():
    values = np.array([[0.0, 1.0, 2.0], [2.0, 3.0, 4.0]])
    middle, low, high = iqm_curve(values)
    assert middle.tolist() == [1.0, 2.0, 3.0]
    assert low is not None and high is not None
    assert (low <= middle).all() and (middle <= high).all()
    assert low.tolist() == [0.0, 1.0, 2.0] and high.tolist() == [2.0, 3.0, 4.0]
    assert iqm_curve(values[:1])[1:] == (None, None)
