"""The learning curve of one job as a picture: games won against every opponent, or the return, over the steps."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

from tdmpc_lab.jobs.metrics import as_float, as_int
from tdmpc_lab.jobs.variants import colour

Row = Mapping[str, Any]
FEWEST = 3
"""Evaluations that make a curve; fewer stand in a table as well."""
_DASHES = ("-", "--", "-.", ":")  # told apart in a print in grey, too


def curve_png(rows: Sequence[Row], title: str) -> bytes | None:
    """A PNG of the evaluations of a job, by rising step; None where there are fewer than `FEWEST`.

    Of games the share won with its 95 % interval, else the mean return with its standard deviation.
    """
    rows = [row for row in rows if as_int(row.get("step")) is not None]
    lines = {name: found for name, keys in _series(rows).items() if len(found := _points(rows, *keys)) >= FEWEST}
    if not lines:
        return None
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    for number, (name, points) in enumerate(lines.items()):
        steps, values, low, high = zip(*points, strict=True)
        shade, dashes = colour(number), _DASHES[number % len(_DASHES)]
        axes.plot(steps, values, label=name, marker=".", color=shade, linestyle=dashes)
        axes.fill_between(steps, low, high, color=shade, alpha=0.15, linewidth=0)
    axes.set_title(title, loc="left", fontsize=10)
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.set_xlabel("environment steps")
    axes.set_ylabel("games won" if "return" not in lines else "return")
    if "return" not in lines:
        axes.set_ylim(-0.02, 1.02)
    axes.grid(alpha=0.3)
    axes.legend(loc="best", frameon=False)
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=110)
    return picture.getvalue()


def _series(rows: Sequence[Row]) -> dict[str, tuple[str, str, str]]:
    """What is drawn, by its name in the legend: the keys of the value and of both ends of its interval; of a return
    twice that of its deviation."""
    keys = dict.fromkeys(key for row in rows for key in row)
    opponents = [key[4:] for key in keys if key.startswith("win_") and f"loss_{key[4:]}" in keys]
    if opponents:
        return {f"won against {name}": (f"win_{name}", f"win_low_{name}", f"win_high_{name}") for name in opponents}
    if "win" in keys:
        return {"won": ("win", "win_low", "win_high")}
    return {"return": ("return_mean", "return_std", "return_std")}


def _points(rows: Sequence[Row], key: str, low: str, high: str) -> list[tuple[int, float, float, float]]:
    """Step, value, and the interval around it, which is empty where none is known."""
    points = []
    for row in rows:
        step, value = as_int(row.get("step")), as_float(row.get(key))
        if step is None or value is None:
            continue
        below, above = as_float(row.get(low)), as_float(row.get(high))
        if low == high:  # a deviation
            below, above = value - (below or 0.0), value + (above or 0.0)
        points.append((step, value, value if below is None else below, value if above is None else above))
    return points
