"""The curve of a job's evaluations: a line of small bars for the note's text, and a picture. Pure functions."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from tdmpc_lab.jobs.metrics import as_float, as_int, opponents_of
from tdmpc_lab.notes.results import Row, evenly
from tdmpc_lab.text import number

Scale = Callable[[float], float]
Number = float | None
BARS = "▁▂▃▄▅▆▇█"
_MOST_BARS = 40
_TABLE = re.compile(r"\| +step \| +return \|")
_MOST_POINTS = 200
_WIDTH, _HEIGHT = 360, 110
_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 10, 18, 18
_COLOURS = ("#3572b0", "#c8553d", "#2a9d4a", "#8e5bb5", "#b8860b")  # readable on white and on black


@dataclass(frozen=True)
class NoteCurve:
    """One quantity over the steps of a job; at least one point."""

    name: str
    """`return`, or `win rate vs strong`."""
    steps: tuple[int, ...]
    values: tuple[float, ...]
    low: tuple[float | None, ...]
    """The lower end of what is drawn around each value: its interval, or one standard deviation below."""
    high: tuple[float | None, ...]


def curves_of(rows: Sequence[Row]) -> list[NoteCurve]:
    """Of games the win rate against each opponent, else the return; rows without a number are left out."""
    games = opponents_of(rows[-1]) if rows else []
    if not games:
        return _curve("return", [(row, *_around_mean(row)) for row in rows])
    found: list[NoteCurve] = []
    for name, suffix in games:
        share, low, high = (f"{key}{suffix}" for key in ("win", "win_low", "win_high"))
        points = [(row, as_float(row.get(share)), as_float(row.get(low)), as_float(row.get(high))) for row in rows]
        found += _curve(f"win rate vs {name}", points)
    return found


def curves_in(note: str) -> list[NoteCurve]:
    """The curves that the table of evaluations in a note holds, thinned out as it is: what a page can draw where there
    is no job folder any more. As `curves_of`; none where there is no such table."""
    lines = iter(note.split("\n"))
    head = next((_cells(line) for line in lines if _TABLE.match(line)), None)
    if head is None:
        return []
    next(lines, None)  # the rule below the head
    rows = [cells for line in itertools.takewhile(lambda line: line.startswith("|"), lines) if (cells := _cells(line))]
    whole = [(int(step), row) for row in rows if len(row) == len(head) and (step := _number(row[0])) is not None]
    wins = [column for column, name in enumerate(head) if name.startswith("win vs ")]
    points = [(step, *_mean_in(row[1])) for step, row in whole]
    if not wins:
        return _curve_through("return", points)
    found: list[NoteCurve] = []
    for column in wins:
        shares = [(step, *_share_in(row[column])) for step, row in whole]
        found += _curve_through(f"win rate {head[column].removeprefix('win ')}", shares)
    return found


def spark_line(curve: NoteCurve) -> str:
    """`▁▂▄▆█ −1,200.5 → −135.8, best −120.1 at step 4,000`; at most forty bars, lowest to highest value."""
    shown = [curve.values[index] for index in evenly(len(curve.values), _MOST_BARS)]
    low, high = min(curve.values), max(curve.values)
    height = _scale(low, high, 0, len(BARS) - 1) if high > low else lambda _value: 0.0
    bars = "".join(BARS[round(height(value))] for value in shown)
    best = curve.values.index(high)
    ends = f"{number(curve.values[0])} → {number(curve.values[-1])}"
    return f"{bars} {ends}, best {number(high)} at step {number(curve.steps[best])}"


def svg(curves: Sequence[NoteCurve], title: str) -> str:
    """The curves as one small picture, the first and last step and the lowest and highest value at its edges.

    It refers to nothing outside of itself, and takes its text colour from where it is shown.
    """
    drawn = [_thinned(curve) for curve in curves]
    steps = [step for curve in drawn for step in curve.steps]
    values = [value for curve in drawn for ends in (curve.low, curve.values, curve.high) for value in ends]
    known = [value for value in values if value is not None]
    x, y = (
        _scale(min(steps), max(steps), _LEFT, _WIDTH - _RIGHT),
        _scale(min(known), max(known), _HEIGHT - _BOTTOM, _TOP),
    )
    parts = [_band(curve, x, y, _COLOURS[n % len(_COLOURS)]) for n, curve in enumerate(drawn)]
    parts += [_line(curve, x, y, _COLOURS[n % len(_COLOURS)]) for n, curve in enumerate(drawn)]
    labels = [
        _text(_LEFT - 5, _TOP + 4, number(max(known)), "end"),
        _text(_LEFT - 5, _HEIGHT - _BOTTOM + 3, number(min(known)), "end"),
        _text(_LEFT, _HEIGHT - 5, number(min(steps)), "start"),
        _text(_WIDTH - _RIGHT, _HEIGHT - 5, f"step {number(max(steps))}", "end"),
    ]
    across = (_WIDTH - _LEFT - _RIGHT) / len(drawn)
    for n, curve in enumerate(drawn):
        labels.append(_text(_LEFT + n * across, 11, curve.name, "start", _COLOURS[n % len(_COLOURS)]))
    axes = (
        f'<path d="M{_LEFT} {_TOP}V{_HEIGHT - _BOTTOM}H{_WIDTH - _RIGHT}" fill="none" stroke="#888" stroke-width="1"/>'
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" width="{_WIDTH}" '
        f'height="{_HEIGHT}" role="img" font-family="sans-serif" font-size="10">'
        f"<title>{escape(title)}</title>{axes}{''.join(parts)}{''.join(labels)}</svg>\n"
    )


def _curve(name: str, points: Sequence[tuple[Row, Number, Number, Number]]) -> list[NoteCurve]:
    return _curve_through(name, [(as_int(row.get("step")), value, low, high) for row, value, low, high in points])


def _curve_through(name: str, points: Sequence[tuple[int | None, Number, Number, Number]]) -> list[NoteCurve]:
    """The curve through the points that have a step and a value; none without any."""
    whole = [(step, value, low, high) for step, value, low, high in points if step is not None and value is not None]
    if not whole:
        return []
    steps, values, low, high = zip(*whole, strict=True)
    return [NoteCurve(name, steps, values, low, high)]


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


def _number(text: str) -> Number:
    """A number as notes write it: `−1,200.5`."""
    try:
        value = float(text.strip().replace("\N{MINUS SIGN}", "-").replace(",", ""))
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _mean_in(cell: str) -> tuple[Number, Number, Number]:
    """`−150.2 ± 80.1`: the mean, and one standard deviation below and above."""
    text, _, spread = cell.partition("±")
    mean, std = _number(text), _number(spread)
    return (mean, None, None) if mean is None or std is None else (mean, mean - std, mean + std)


def _share_in(cell: str) -> tuple[Number, Number, Number]:
    """`0.87 [0.83, 0.90]`: the share and the ends of its interval."""
    text, _, ends = cell.partition("[")
    low, _, high = ends.rstrip("] ").partition(",")
    return _number(text), _number(low), _number(high)


def _around_mean(row: Row) -> tuple[float | None, float | None, float | None]:
    mean, std = as_float(row.get("return_mean")), as_float(row.get("return_std"))
    if mean is None or std is None:
        return mean, None, None
    return mean, mean - std, mean + std


def _thinned(curve: NoteCurve) -> NoteCurve:
    kept = evenly(len(curve.values), _MOST_POINTS)

    def of(column: Sequence[Any]) -> tuple[Any, ...]:
        return tuple(column[index] for index in kept)

    return NoteCurve(curve.name, of(curve.steps), of(curve.values), of(curve.low), of(curve.high))


def _scale(low: float, high: float, begin: float, end: float) -> Scale:
    """From values to the picture; what is all the same lies in the middle."""
    span = high - low
    if not math.isfinite(span) or span <= 0:
        return lambda _value: (begin + end) / 2
    return lambda value: begin + (value - low) / span * (end - begin)


def _band(curve: NoteCurve, x: Scale, y: Scale, colour: str) -> str:
    around = [
        (s, a, b) for s, a, b in zip(curve.steps, curve.low, curve.high, strict=True) if a is not None and b is not None
    ]
    if len(around) < 2:
        return ""
    above = [f"{x(step):.1f},{y(high):.1f}" for step, _, high in around]
    below = [f"{x(step):.1f},{y(low):.1f}" for step, low, _ in reversed(around)]
    return f'<polygon points="{" ".join([*above, *below])}" fill="{colour}" fill-opacity="0.15"/>'


def _line(curve: NoteCurve, x: Scale, y: Scale, colour: str) -> str:
    places = [(x(step), y(value)) for step, value in zip(curve.steps, curve.values, strict=True)]
    points = " ".join(f"{left:.1f},{top:.1f}" for left, top in places)
    line = f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="1.5"/>'
    return f'{line}<circle cx="{places[-1][0]:.1f}" cy="{places[-1][1]:.1f}" r="2.2" fill="{colour}"/>'


def _text(left: float, top: float, words: str, anchor: str, colour: str = "#888") -> str:
    return f'<text x="{left:.0f}" y="{top:.0f}" text-anchor="{anchor}" fill="{colour}">{escape(words)}</text>'
