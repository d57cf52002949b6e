"""The curve of a job's evaluations, as bars and as a picture."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tdmpc_lab.notes.curve import BARS, curves_in, curves_of, spark_line, svg
from tdmpc_lab.notes.results import table


def rows(*means: Any, **fields: Any) -> list[dict[str, Any]]:
    return [
        {"step": 1000 * n, "return_mean": mean, "return_std": 10.0, **fields} for n, mean in enumerate(means, start=1)
    ]


def test_bars_from_the_lowest_to_the_highest() -> None:
    (curve,) = curves_of(rows(-1200.0, -700.0, -100.0, -200.0))
    assert spark_line(curve) == "▁▄█▇ −1,200.0 → −200.0, best −100.0 at step 3,000"


def test_many_evaluations_make_forty_bars_with_the_first_and_the_last() -> None:
    (curve,) = curves_of(rows(*range(400)))
    bars = spark_line(curve).split()[0]
    assert (len(bars), bars[0], bars[-1]) == (40, "▁", "█")


def test_what_never_changes_lies_low() -> None:
    (curve,) = curves_of(rows(5.0, 5.0))
    assert spark_line(curve).startswith("▁▁ 5.00 → 5.00")


def test_games_have_a_curve_for_each_opponent() -> None:
    shares = {"win": 0.5, "draw": 0.1, "win_weak": 0.9, "draw_weak": 0.0, "win_low_weak": 0.8, "win_high_weak": 0.95}
    found = curves_of(rows(1.0, 2.0, **shares, win_strong=0.2, draw_strong=0.1))
    assert [curve.name for curve in found] == ["win rate vs weak", "win rate vs strong"]
    assert found[0].low == (0.8, 0.8) and found[1].low == (None, None)


@pytest.mark.parametrize("broken", [[], [{"step": 1}], [{"return_mean": 1.0}], rows(None), rows(float("nan"))])
def test_rows_without_numbers_make_no_curve(broken: list[dict[str, Any]]) -> None:
    assert curves_of(broken) == []


@settings(deadline=None, max_examples=50)
@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=300))
def test_the_picture_is_whole_and_alone_whatever_the_numbers(means: list[float]) -> None:
    (curve,) = curves_of(rows(*means))
    assert set(spark_line(curve).split()[0]) <= set(BARS)
    picture = svg([curve], 'a "job" <b>')
    ET.fromstring(picture)
    outside = picture.replace("http://www.w3.org/2000/svg", "")
    assert not any(word in outside for word in ("http", "href", "url(", "<script", "nan", "inf"))


def test_the_table_of_a_note_holds_the_same_curve() -> None:
    found = rows(-1200.5, -150.25, None)
    (of, within) = (*curves_of(found), *curves_in("- text\n\n" + "\n".join(table(found, "x")) + "\n\nmore | text\n"))
    assert (within.name, within.steps) == (of.name, of.steps) == ("return", (1000, 2000))
    assert within.values == pytest.approx(of.values, abs=0.1)
    assert within.low == pytest.approx(of.low, abs=0.2)


def test_the_table_of_games_holds_win_rates_with_their_intervals() -> None:
    games = rows(1.0, 2.0, opponent="strong", win=0.87, draw=0.1, win_low=0.83, win_high=0.9)
    (curve,) = curves_in("\n".join(table(games, "x")))
    assert (curve.name, curve.values, curve.low, curve.high) == (
        "win rate vs strong",
        (0.87,) * 2,
        (0.83,) * 2,
        (0.9,) * 2,
    )


@pytest.mark.parametrize(
    "note", ["", "| a | b |", "|  step | return |", "| step | return |\n|--:|--:|\n| x | y |\n| 1 |"]
)
def test_other_tables_hold_none(note: str) -> None:
    assert curves_in(note) == []
