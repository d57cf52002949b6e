"""`metrics.jsonl`: rows of the training and of the evaluations.

    train  {"step", "split": "train", "attempt", "wall_s", "steps_per_s", "return", "episode_length",
            "loss/…"}
    eval   {"step", "split": "eval", "attempt", "wall_s", "return_mean", "return_std", "return_min",
            "return_max", "episodes", "length_mean"}

Steps are environment steps; wall_s are seconds trained, over all attempts; returns are sums of raw rewards.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from tdmpc_lab.files import decode_jsonl, read_jsonl, tail_jsonl
from tdmpc_lab.jobs.paths import JobPaths

Row = dict[str, Any]

LATEST = 65536
"""Bytes at the end of the metrics that tell how a job that runs is doing."""


def latest_rows(paths: JobPaths, max_bytes: int = LATEST) -> list[Row]:
    """The last rows, in order, reading only the end of the file. Raises RecordError."""
    return tail_jsonl(paths.metrics, max_bytes)


def eval_rows(paths: JobPaths) -> list[Row]:
    """Every evaluation, in the order written; reads the whole file. Raises RecordError."""
    rows, _ = read_jsonl(paths.metrics)
    return [row for row in rows if row.get("split") == "eval"]


def end_of_step(paths: JobPaths, step: int) -> int:
    """The byte after the last row at `step` or before it; rows rise by step. Raises RecordError, OSError."""
    end = 0
    with paths.metrics.open("rb") as file:
        lines = file.read().splitlines(keepends=True)
    for index in range(len(lines) - 1, -1, -1):
        rows = decode_jsonl(paths.metrics, lines[index]) if lines[index].endswith(b"\n") else []
        found = last_step(rows)
        if found is not None and found <= step:
            end = sum(len(line) for line in lines[: index + 1])
            break
    return end


def last_step(rows: Iterable[Mapping[str, Any]]) -> int | None:
    """The step of the last row that has one."""
    steps = [step for row in rows if (step := as_int(row.get("step"))) is not None]
    return steps[-1] if steps else None


def without_superseded(rows: Iterable[Row]) -> list[Row]:
    """The rows by rising step. A job that went on from a checkpoint does some steps again: the rows written
    later replace those at the same step or beyond. Rows without a step are left out."""
    kept: list[Row] = []
    for row in rows:
        step = as_int(row.get("step"))
        if step is None:
            continue
        while kept and kept[-1]["step"] >= step:
            kept.pop()
        kept.append(row)
    return kept


def as_int(value: object) -> int | None:
    """The value if it is an integer, else None: rows may come from a torn or foreign file."""
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def as_float(value: object) -> float | None:
    """The value if it is a finite number, else None."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None
