"""A comparison as tables of texts, as Markdown, CSV and plain values for JSON."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from tdmpc_lab.report.comparison import Comparison, Pair
from tdmpc_lab.report.figures import Figures, Reached, Summary, Wins
from tdmpc_lab.report.runs import Metric
from tdmpc_lab.report.statistics import Estimate
from tdmpc_lab.text import number

_NONE = "–"
_MOST_DIGITS = 4  # behind the point


@dataclass(frozen=True)
class Table:
    """Cells of text; the first column is to stand left, the others right."""

    titles: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def headline(c: Comparison) -> str:
    """What is compared, where, and how to read it, in one or two lines."""
    better = ", less is better" if c.metric.lower else ""
    place = f"steps {c.begin:,} to {c.end:,}" if c.begin < c.end else f"step {c.end:,}"
    over = f"; runs differ in {', '.join(c.over)}, drawn again within each value" if c.over else ""
    return (
        f"{c.metric.label}{better}, {place}: interquartile mean over seeds [95 % bootstrap interval{over}]; "
        "final: last evaluation, mean: area under the curve by its width"
    )


def differences_table(c: Comparison) -> Table:
    """The settings in which they differ, one row each, one column for each variant."""
    names = tuple(one.name for one in c.summaries)
    return Table(("setting", *names), tuple((change.key, *change.values) for change in c.differences))


def figures_table(c: Comparison) -> Table:
    """One row for each variant."""
    columns: list[tuple[str, Callable[[Summary], str]]] = [
        ("variant", lambda s: s.name),
        ("seeds", _seeds),
        ("final", lambda s: interval_text(s.final, c.metric)),
        ("best", lambda s: interval_text(s.best, c.metric)),
        ("mean", lambda s: interval_text(s.area, c.metric)),
    ]
    columns += [(_games_title(c.metric, name), partial(_games, opponent=name)) for name in _opponents(c)]
    if c.threshold is not None:
        sign = "≤" if c.metric.lower else "≥"
        columns.append((f"steps to {sign} {value_text(c.threshold, c.metric)}", lambda s: _reached(s.steps_to, _steps)))
        columns.append(("hours to it", lambda s: _reached(s.hours_to, number)))
    rows = tuple(tuple(make(one) for _, make in columns) for one in c.summaries)
    return Table(tuple(title for title, _ in columns), rows)


def pair_line(pair: Pair) -> str:
    """`a run of b is better than one of a with probability 0.92 [0.72, 1.00] (5 and 5 seeds): better`"""
    _, low, high = pair.improvement
    interval = "" if low is None or high is None else f" [{low:.2f}, {high:.2f}]"
    better = f"a run of {pair.name} is better than one of {pair.over} with probability {pair.improvement.value:.2f}"
    return f"{better}{interval} ({pair.seeds[1]} and {pair.seeds[0]} seeds): {pair.judgement}"


def value_text(value: float, metric: Metric, width: float | None = None) -> str:
    """Shares with two digits. All else with two digits of half the interval's width, or about three that matter."""
    if metric.is_share:
        return f"{value:.2f}"
    if not width:
        return number(int(value) if value == int(value) and abs(value) >= 10 else value)
    digits = max(0, 1 - math.floor(math.log10(width / 2)))
    return f"{value:,.{digits}f}".replace("-", "−") if digits <= _MOST_DIGITS else number(value)


def interval_text(estimate: Estimate | None, metric: Metric) -> str:
    """`−150.2 [−180.1, −120.4]`"""
    if estimate is None:
        return _NONE
    value, low, high = estimate
    if low is None or high is None:
        return value_text(value, metric)
    value_, low_, high_ = (value_text(one, metric, high - low) for one in (value, low, high))
    return f"{value_} [{low_}, {high_}]"


def _seeds(summary: Summary) -> str:
    runs = len(summary.variant.runs)
    count = str(summary.seeds) if summary.seeds == runs else f"{summary.seeds} of {runs}"
    return count if summary.enough or not summary.seeds else f"{count}, too few seeds to tell"


def _opponents(c: Comparison) -> list[str | None]:
    return list(dict.fromkeys(wins.opponent for one in c.summaries for wins in one.wins))


def _games_title(metric: Metric, opponent: str | None) -> str:
    outcome = {"win": "won", "draw": "drawn", "loss": "lost"}[metric.name.partition("_")[0]]
    return f"games {outcome}, all" if opponent is None else f"games {outcome} vs {opponent}"


def _games(summary: Summary, opponent: str | None) -> str:
    found = next((wins for wins in summary.wins if wins.opponent == opponent), None)
    return _NONE if found is None else games_text(found)


def games_text(wins: Wins) -> str:
    """`0.87 [0.83, 0.90] of 300`"""
    return f"{wins.won / wins.played:.2f} [{wins.low:.2f}, {wins.high:.2f}] of {wins.played:,}"


def _steps(value: float) -> str:
    return f"{round(value):,}"


def _reached(reached: Reached | None, text: Callable[[float], str]) -> str:
    """`20,000 [10,000 to 30,000], 4 of 5`"""
    if reached is None or not reached.count or reached.least is None or reached.most is None:
        return _NONE
    middle = f"not by half, first {text(reached.least)}" if reached.median is None else text(reached.median)
    spread = f" [{text(reached.least)} to {text(reached.most)}]" if reached.least < reached.most else ""
    return f"{middle}{spread if reached.median is not None else ''}, {reached.count} of {reached.of}"


def markdown(c: Comparison) -> str:
    """All of it as Markdown, to paste into a note or an issue."""
    parts = [headline(c), _markdown_table(figures_table(c))]
    if c.differences:
        parts.append(_markdown_table(differences_table(c)))
    elif len(c.summaries) > 1:
        parts.append("Their configs are the same.")
    parts += [_items([pair_line(pair) for pair in c.pairs]), _items(c.remarks)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _items(lines: Sequence[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def _markdown_table(table: Table) -> str:
    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"

    rule = f"|---|{'---:|' * (len(table.titles) - 1)}"
    return "\n".join([line(table.titles), rule, *(line(row) for row in table.rows)])


def csv_text(c: Comparison) -> str:
    """One line for each variant, plain numbers; what is not known is empty."""
    columns = ["variant", "experiment", "group", "metric", "runs", "seeds", "enough_seeds", "begin_step", "end_step"]
    columns += [f"{name}{end}" for name in ("final", "best", "mean") for end in ("", "_low", "_high")]
    columns += ["won", "played", "win_low", "win_high", "reached", "steps_to", "hours_to", "over"]
    columns += ["improvement", "improvement_low", "improvement_high", "judgement", "jobs"]
    pairs = {pair.name: pair for pair in c.pairs}
    out = io.StringIO()
    lines = csv.writer(out, lineterminator="\n")
    lines.writerow([*columns, *(change.key for change in c.differences)])
    for place, one in enumerate(c.summaries):
        first = one.variant.runs[0].record
        pair = pairs.get(one.name)
        wins = one.wins[0] if one.wins else None
        lines.writerow(
            [one.name, first.experiment, first.group, c.metric.name, len(one.variant.runs), one.seeds, one.enough]
            + [c.begin, c.end, *_plain(one.final), *_plain(one.best), *_plain(one.area)]
            + ([None] * 4 if wins is None else [wins.won, wins.played, wins.low, wins.high])
            + (
                [None] * 3
                if c.threshold is None
                else [_count(one.steps_to), _middle(one.steps_to), _middle(one.hours_to)]
            )
            + ([None] * 5 if pair is None else [pair.over, *_plain(pair.improvement), pair.judgement])
            + [" ".join(figures.run.id for figures in one.figures)]
            + [change.values[place] for change in c.differences]
        )
    return out.getvalue()


def _plain(estimate: Estimate | None) -> list[float | None]:
    return [None] * 3 if estimate is None else list(estimate)


def _count(reached: Reached | None) -> int | None:
    return None if reached is None else reached.count


def _middle(reached: Reached | None) -> float | None:
    return None if reached is None else reached.median


def as_dict(c: Comparison) -> dict[str, Any]:
    """For scripts: every figure with its interval, and every run."""
    return {
        "metric": c.metric.name,
        "lower_is_better": c.metric.lower,
        "begin_step": c.begin,
        "end_step": c.end,
        "threshold": c.threshold,
        "reference": c.reference,
        "variants": [_variant(one, with_threshold=c.threshold is not None) for one in c.summaries],
        "differences": [
            {"key": change.key, "values": dict(zip((s.name for s in c.summaries), change.values, strict=True))}
            for change in c.differences
        ],
        "improvements": [
            {
                "variant": pair.name,
                "over": pair.over,
                **_estimate(pair.improvement),
                "seeds": [pair.seeds[1], pair.seeds[0]],
                "judgement": pair.judgement,
            }
            for pair in c.pairs
        ],
        "remarks": list(c.remarks),
    }


def _variant(one: Summary, *, with_threshold: bool) -> dict[str, Any]:
    first = one.variant.runs[0].record
    document: dict[str, Any] = {
        "name": one.name,
        "experiment": first.experiment,
        "group": first.group,
        "about": first.about,
        "seeds": one.seeds,
        "enough_seeds": one.enough,
        "final": None if one.final is None else _estimate(one.final),
        "best": None if one.best is None else _estimate(one.best),
        "mean": None if one.area is None else _estimate(one.area),
        "games": [
            {"opponent": w.opponent, "won": w.won, "played": w.played, "low": w.low, "high": w.high} for w in one.wins
        ],
        "runs": [_run(figures) for figures in one.figures],
        "left_out": [{"job": run.id, "state": run.state, "step": run.step} for run in (*one.short, *one.empty)],
        "same_seed": [{"job": run.id, "counts": by.id} for run, by in one.variant.doubles],
    }
    if with_threshold and one.steps_to is not None and one.hours_to is not None:
        document |= {
            "reached": one.steps_to.count,
            "steps_to": one.steps_to.median,
            "hours_to": one.hours_to.median,
        }
    return document


def _run(figures: Figures) -> dict[str, Any]:
    return {
        "job": figures.run.id,
        "seed": figures.run.record.seed,
        "state": figures.run.state,
        "final": figures.final,
        "best": figures.best,
        "mean": figures.area,
        "steps_to": figures.steps_to,
        "hours_to": figures.hours_to,
    }


def _estimate(estimate: Estimate) -> dict[str, float | None]:
    return {"value": estimate.value, "low": estimate.low, "high": estimate.high}
