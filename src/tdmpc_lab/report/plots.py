"""The learning curve of one job as a picture: games won against every opponent, or the return, over the steps.

Also here: learning curves of variants: interquartile mean over seeds with its interval, told apart without colours too.

Also here: the picture of `rewards`: raw, shaped and learned reward of some episodes, step by step and added up.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tdmpc_lab.files import write_atomic
from tdmpc_lab.jobs.metrics import as_float, as_int
from tdmpc_lab.jobs.variants import colour
from tdmpc_lab.outputs import picture_metadata
from tdmpc_lab.report.comparison import Comparison
from tdmpc_lab.report.figures import Summary
from tdmpc_lab.report.runs import Metric, Series, series_of
from tdmpc_lab.report.statistics import ENOUGH_SEEDS, Scores, iqm_curve
from tdmpc_lab.sharing import own_umask_outside

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


Row = Mapping[str, Any]
FEWEST = 3
"""Evaluations that make a curve; fewer stand in a table as well."""
_RUN_DASHES = ("-", "--", "-.", ":")  # told apart in a print in grey, too


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
        shade, dashes = colour(number), _RUN_DASHES[number % len(_RUN_DASHES)]
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


FORMATS = (".png", ".svg", ".pdf")
_POINTS = 100  # of a curve: more are not to be seen
_MARKERS = "osD^vPX*"
_DASHES = ("-", (0, (5, 1.5)), (0, (1.5, 1.2)), (0, (6, 1.5, 1.5, 1.5)), (0, (8, 2)))
_SIZE = (8.0, 4.8)  # inches
_LINES_IN_LEGEND = 12


@dataclass(frozen=True)
class Curve:
    """One variant over environment steps, (P,) each."""

    steps: NDArray[np.int64]
    middle: Scores
    low: Scores | None
    high: Scores | None


def curve_of(summary: Summary) -> Curve | None:
    """The curve of the runs that count, as far as all of them go; None where there are none.

    Between a run's evaluations it is a straight line. At most 100 points.
    """
    series = [figures.series for figures in summary.figures]
    if not series:
        return None
    begin, end = max(one.steps[0] for one in series), min(one.steps[-1] for one in series)
    steps = np.unique(np.concatenate([one.steps for one in series]))
    steps = steps[(steps >= begin) & (steps <= end)]
    if len(steps) > _POINTS:
        steps = steps[np.unique(np.linspace(0, len(steps) - 1, _POINTS).round().astype(int))]
    if not len(steps):
        return None
    values = np.stack([np.interp(steps, one.steps, one.values) for one in series])
    return Curve(steps, *iqm_curve(values))


def draw_curves(path: Path, c: Comparison) -> None:
    """Draw the learning curves; the ending of `path` says which format. Raises OSError."""
    with own_umask_outside(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, _drawn(_figure(c), path.suffix[1:]))


def curves_svg(c: Comparison) -> str:
    """The same picture as SVG, to stand within a page."""
    text = _drawn(_figure(c), "svg").decode()
    return text[text.index("<svg") :]


def _drawn(figure: Figure, form: str) -> bytes:
    from matplotlib import rc_context

    # Text stays text: it can be searched, and a page of many curves stays small. No date: the same picture, same bytes.
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "tdmpc-lab"}):
        out = io.BytesIO()
        figure.savefig(out, format=form, dpi=150, metadata=picture_metadata(f".{form}"))
    return out.getvalue()


def _figure(c: Comparison) -> Figure:
    from matplotlib.figure import Figure
    from matplotlib.ticker import EngFormatter

    figure = Figure(figsize=_SIZE, layout="constrained")
    axes = figure.subplots()
    for place, summary in enumerate(c.summaries):
        _draw_variant(axes, summary, place, c.metric)
    if any(int(figures.series.steps[-1]) > c.end for s in c.summaries for figures in s.figures):
        axes.axvline(c.end, color="0.4", linewidth=0.8, linestyle=":")
        axes.annotate(
            "compared here", (c.end, 1), (-3, -3), xycoords=("data", "axes fraction"), textcoords="offset points",
            rotation=90, ha="right", va="top", fontsize=7, color="0.4",
        )  # fmt: skip
    if c.threshold is not None:
        axes.axhline(c.threshold, color="0.4", linewidth=0.8, linestyle="--")
    axes.set_xlabel("environment steps")
    axes.set_ylabel(c.metric.label)
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.grid(alpha=0.3, linewidth=0.5)
    axes.margins(x=0.02)
    if c.metric.is_share:
        axes.set_ylim(-0.02, 1.02)
    handles, labels = axes.get_legend_handles_labels()
    beside = len(labels) > _LINES_IN_LEGEND
    if handles:
        place_of = {"loc": "center left", "bbox_to_anchor": (1.0, 0.5)} if beside else {"loc": "best"}
        axes.legend(fontsize=8, frameon=True, framealpha=0.8, handlelength=3.6, **place_of)
    crosses = "; ×: a run that ended early" if any(summary.short for summary in c.summaries) else ""
    axes.set_title(
        f"interquartile mean over seeds, 95 % bootstrap interval{crosses}", loc="left", fontsize=8, color="0.3"
    )
    return figure


def _draw_variant(axes: Axes, summary: Summary, place: int, metric: Metric) -> None:
    style: dict[str, Any] = {
        "color": colour(place),
        "linestyle": _DASHES[(place + place // len(_MARKERS)) % len(_DASHES)],
    }
    marker = _MARKERS[place % len(_MARKERS)]
    curve = curve_of(summary)
    if curve is not None:
        if curve.low is not None and curve.high is not None:
            axes.fill_between(curve.steps, curve.low, curve.high, color=style["color"], alpha=0.15, linewidth=0)
        every = max(1, len(curve.steps) // 8)
        offset = (
            place % every if len(curve.steps) > every else 0
        )  # curves that lie on each other keep their markers apart
        axes.plot(
            curve.steps, curve.middle, label=_label(summary), linewidth=1.8, marker=marker, markersize=6,
            markeredgecolor="white", markeredgewidth=0.6, markevery=(offset, every), **style,
        )  # fmt: skip
    for run in summary.short:
        _draw_short(axes, series_of(run, metric), style)


def _draw_short(axes: Axes, series: Series, style: dict[str, Any]) -> None:
    """A run that did not come to the end of the range: thin, with a cross where it ended."""
    axes.plot(series.steps, series.values, linewidth=0.7, alpha=0.8, **style)
    axes.plot(series.steps[-1:], series.values[-1:], marker="x", markersize=6, color=style["color"], linestyle="none")


def _label(summary: Summary) -> str:
    count = f"{summary.seeds} seed{'' if summary.seeds == 1 else 's'}"
    few = ", too few to tell" if summary.seeds < ENOUGH_SEEDS else ""
    return f"{summary.name} ({count}{few})"


PerStep = NDArray[np.float64]
# Told apart by line and width too, so that a print in grey can be read. The widest lies at the back.
_LINES = (
    ("after backprop", {"color": "tab:orange", "linewidth": 4.0, "alpha": 0.55}),
    ("shaped", {"color": "tab:blue", "linewidth": 1.8, "linestyle": (0, (4, 2))}),
    ("raw", {"color": "black", "linewidth": 1.0}),
)


def draw_rewards(path: Path, episodes: Sequence[tuple[str, PerStep, PerStep, PerStep]]) -> None:
    """Draw episodes, each a title and its raw, shaped and learned rewards (T,), one row of two charts each.

    Left the reward of every step, right the return so far. The ending of `path` says which format. Raises OSError.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 3.2 * len(episodes)), layout="constrained")
    axes = figure.subplots(len(episodes), 2, squeeze=False)
    for row, (title, raw, shaped, learned) in zip(axes, episodes, strict=True):
        for series, (name, style) in zip((learned, shaped, raw), _LINES, strict=True):
            steps = np.arange(len(series))
            row[0].plot(steps, series, label=name, **style)
            row[1].plot(steps, np.cumsum(series), label=name, **style)
        row[0].set_title(title, loc="left", fontsize=10)
        row[0].set_ylabel("reward")
        row[1].set_ylabel("return so far")
        for axis in row:
            axis.grid(alpha=0.3)
            axis.margins(x=0.01)
    axes[0][1].legend(loc="best", frameon=False)
    for axis in axes[-1]:
        axis.set_xlabel("step of the episode")
    with own_umask_outside(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=110, metadata=picture_metadata(path.suffix))
