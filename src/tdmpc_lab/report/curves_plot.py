"""Learning curves of variants: interquartile mean over seeds with its interval, told apart without colours too."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tdmpc_lab.files import write_atomic
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
