"""The learning curve of one job."""

from __future__ import annotations

from typing import Any

import pytest

from tdmpc_lab.report.plots import _points, _series, curve_png

PENDULUM = [{"step": step, "return_mean": -1000.0 + step, "return_std": 20.0} for step in range(0, 300, 100)]
GAMES = [
    {"step": 1, "win": 0.5, "win_low": 0.4, "win_high": 0.6, "loss": 0.1}
    | {f"{key}_{name}": 0.5 for name in ("weak", "strong") for key in ("win", "win_low", "loss")}
]


def test_fewer_than_three_evaluations_make_no_curve() -> None:
    assert curve_png(PENDULUM[:2], "x") is None
    assert curve_png([], "x") is None
    assert curve_png([{"step": i, "return_mean": float("nan")} for i in range(5)], "x") is None


@pytest.mark.parametrize("rows", [PENDULUM, GAMES * 3])
def test_a_picture(rows: list[dict[str, Any]]) -> None:
    picture = curve_png(rows, "horizon · h4 · ünlimited $x$")
    assert picture is not None
    assert picture.startswith(b"\x89PNG")
    assert len(picture) < 200_000


def test_what_is_drawn() -> None:
    assert list(_series(GAMES)) == ["won against weak", "won against strong"]
    assert list(_series([{"win": 0.5, "loss": 0.1}])) == ["won"]
    (keys,) = _series(PENDULUM).values()
    assert _points(PENDULUM, *keys)[1] == (100, -900.0, -920.0, -880.0)
    assert _points(GAMES, "win", "win_low", "win_high") == [(1, 0.5, 0.4, 0.6)]
    assert _points(GAMES, "win_weak", "win_low_weak", "win_high_weak") == [(1, 0.5, 0.5, 0.5)]
    assert _points([{"step": 5, "return_mean": 1.0}, {"step": 6}], *keys) == [(5, 1.0, 1.0, 1.0)]
