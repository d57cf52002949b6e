"""Games in a note: win rates with their intervals, by opponent."""

from __future__ import annotations

import pytest

from tdmpc_lab.jobs.metrics import opponents_of
from tdmpc_lab.notes.results import later_line, latest_of_each, score, table, win_rates

ONE = {
    "step": 10_000,
    "opponent": "strong",
    "episodes": 200,
    "win": 0.87,
    "draw": 0.1,
    "loss": 0.03,
    "win_low": 0.83,
    "win_high": 0.9,
    "return_mean": 5.25,
    "return_std": 4.0,
    "return_min": -12.0,
    "return_max": 10.0,
}
TWO = {
    "step": 10_000,
    "episodes": 40,
    "win": 0.5,
    **{f"{key}_weak": ONE[key] for key in ("win", "draw", "loss", "win_low", "win_high")},
    **{f"{key}_19_x": 0.25 for key in ("win", "draw", "loss", "win_low", "win_high")},
    "return_mean": 1.0,
    "return_std": 2.0,
    "return_min": -1.0,
    "return_max": 3.0,
}


def test_one_opponent() -> None:
    assert win_rates(ONE) == ["vs strong 0.87 [0.83, 0.90]"]
    assert score(ONE) == "win rate vs strong 0.87 [0.83, 0.90] over 200 episodes"


def test_several_opponents() -> None:
    assert opponents_of(TWO) == [("weak", "_weak"), ("19_x", "_19_x")]
    expected = "win rate vs weak 0.87 [0.83, 0.90], vs 19_x 0.25 [0.25, 0.25] over 40 episodes"
    assert score(TWO) == expected


@pytest.mark.parametrize("row", [{}, {"win": None}, {"opponent": "weak"}, {"return_mean": "x"}])
def test_rows_that_lack_something(row: dict[str, object]) -> None:
    assert score(row) == "" and win_rates(row) == []


def test_no_game_is_told_by_its_return() -> None:
    assert score({"return_mean": -150.24, "return_std": 80.1, "episodes": 1}) == "return −150.2 ± 80.1 over 1 episode"


def test_an_evaluation_after_the_training() -> None:
    assert later_line({**ONE, "mode": "policy"}) == (
        "evaluated at step 10,000 (policy only): win rate vs strong 0.87 [0.83, 0.90] over 200 episodes, draw 0.10, "
        "loss 0.03, return 5.25 ± 4.00"
    )


def test_only_the_latest_of_each_kind_is_told() -> None:
    again = {**ONE, "win": 0.5}
    other = {**ONE, "mode": "policy"}
    assert latest_of_each([ONE, other, again]) == [again, other]


def test_the_table_has_a_column_per_opponent() -> None:
    lines = table([TWO], "`there`")
    assert lines[0].split("|")[1:-1] == ["   step ", "      return ", " lowest ", " highest ", "       win vs weak ", "       win vs 19_x "]  # fmt: skip  # noqa: E501
    assert lines[2].endswith("| 0.87 [0.83, 0.90] | 0.25 [0.25, 0.25] |")
