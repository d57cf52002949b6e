"""Results in the words of a note: returns, win rates with their intervals, tables of evaluations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tdmpc_lab.intervals import mean_interval
from tdmpc_lab.jobs.metrics import as_float, as_int, opponents_of
from tdmpc_lab.text import number

Row = Mapping[str, Any]
TABLE_ROWS = 12


def score(row: Row) -> str:
    """`win rate vs strong 0.87 [0.83, 0.90] over 20 episodes`, or `return −150.2 ± 80.1 [−211.0, −89.4] over …`, or
    nothing. In brackets are 95 % intervals, of a mean that of Student's t."""
    games = win_rates(row)
    if games:
        result = ", ".join(f"win rate {text}" if i == 0 else text for i, text in enumerate(games))
    elif as_float(row.get("return_mean")) is not None:
        result = f"return {mean_and_std(row)}{_interval(row)}"
    else:
        return ""
    count = as_int(row.get("episodes"))
    return result + ("" if count is None else f" over {number(count)} episode{'' if count == 1 else 's'}")


def win_rates(row: Row) -> list[str]:
    """`vs strong 0.87 [0.83, 0.90]` for every opponent of an evaluation's row; nothing where there was no game."""
    opponents = opponents_of(row)
    return [f"vs {name} {share_with_interval(row, suffix)}" for name, suffix in opponents]


def share_with_interval(row: Row, suffix: str = "") -> str:
    """`0.87 [0.83, 0.90]`: the share of games won with its 95 % interval."""
    low, high = as_float(row.get(f"win_low{suffix}")), as_float(row.get(f"win_high{suffix}"))
    interval = "" if low is None or high is None else f" [{low:.2f}, {high:.2f}]"
    won = as_float(row.get(f"win{suffix}"))
    return ("?" if won is None else f"{won:.2f}") + interval


def mean_and_std(row: Row) -> str:
    """`−150.2 ± 80.1`"""
    std = as_float(row.get("return_std"))
    return number(as_float(row.get("return_mean"))) + ("" if std is None else f" ± {number(std)}")


def _interval(row: Row) -> str:
    """` [−211.0, −89.4]`: where the mean return lies; nothing where too few episodes tell."""
    mean, std = as_float(row.get("return_mean")), as_float(row.get("return_std"))
    count = as_int(row.get("episodes"))
    ends = None if mean is None or std is None or count is None else mean_interval(mean, std, count)
    return "" if ends is None else f" [{number(ends[0])}, {number(ends[1])}]"


def later_line(row: Row) -> str:
    """What an evaluation after the training found, on one line."""
    how = "policy only" if row.get("mode") == "policy" else "planning"
    how += "" if (seed := as_int(row.get("seed"))) is None else f", seed {seed}"
    parts = [f"evaluated at step {number(as_int(row.get('step')))} ({how}): {score(row)}"]
    shares = [f"{name} {share:.2f}" for name in ("draw", "loss") if (share := as_float(row.get(name))) is not None]
    if shares:
        parts.append(f"{', '.join(shares)}, return {mean_and_std(row)}")
    return ", ".join(parts)


def latest_of_each(rows: Sequence[Row]) -> list[Row]:
    """The last row for every agent, opponent, mode and seed, in the order of their first."""
    latest: dict[tuple[object, ...], Row] = {}
    for row in rows:
        latest[row.get("step"), row.get("mode"), row.get("opponent"), row.get("seed")] = row
    return list(latest.values())


def table(rows: Sequence[Row], where_all: str) -> list[str]:
    """Evaluations as a Markdown table, thinned out where there are many; `where_all` is said then."""
    shown = [rows[index] for index in evenly(len(rows), TABLE_ROWS)]
    games = opponents_of(rows[-1])
    cells = [("step", "return", "lowest", "highest", *(f"win vs {name}" for name, _ in games))]
    for row in shown:
        ends = [number(as_float(row.get(key))) for key in ("return_min", "return_max")]
        won = [share_with_interval(row, suffix) for _, suffix in games]
        cells.append((number(as_int(row["step"])), mean_and_std(row), ends[0], ends[1], *won))
    widths = [max(len(line[column]) for line in cells) for column in range(len(cells[0]))]
    lines = [f"| {' | '.join(cell.rjust(w) for cell, w in zip(line, widths, strict=True))} |" for line in cells]
    lines.insert(1, f"|{'|'.join('-' * (width + 1) + ':' for width in widths)}|")
    if len(shown) < len(rows):
        lines += ["", f"{len(shown)} of {number(len(rows))} evaluations; all: {where_all}"]
    return lines


def evenly(count: int, most: int) -> list[int]:
    """At most `most` (two or more) of the indices below `count`: the first, the last, even steps between."""
    if count <= most:
        return list(range(count))
    return [round(index * (count - 1) / (most - 1)) for index in range(most)]
