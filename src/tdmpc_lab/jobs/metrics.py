"""`metrics.jsonl`: rows of the training and of the evaluations.

    train  {"step", "split": "train", "attempt", "wall_s", "steps_per_s", "checkpoint_s", "return", "episode_length",
            "loss/…"}
    eval   {"step", "split": "eval", "attempt", "wall_s", "return_mean", "return_std", "return_min",
            "return_max", "episodes", "length_mean", "policy_return_mean"}

Steps are environment steps; wall_s are seconds trained, over all attempts; returns are sums of raw rewards.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

from tdmpc_lab.errors import RecordError
from tdmpc_lab.files import decode_jsonl, read_jsonl, read_whole, tail_jsonl, tail_lines
from tdmpc_lab.jobs.paths import METRICS, JobPaths

Row = dict[str, Any]

LATEST = 65536
"""Bytes at the end of the metrics that tell how a job that runs is doing."""
_HEAD = re.compile(rb'\{"step": ?([0-9]{1,18}), ?"split": ?"(train|eval)"[,}]')


def latest_rows(paths: JobPaths, max_bytes: int = LATEST) -> list[Row]:
    """The last rows, in order, reading only the end of the file. Raises RecordError."""
    return tail_jsonl(paths.metrics, max_bytes)


def telling_rows(paths: JobPaths) -> list[Row]:
    """Of the last rows those that tell how a job ended, in order: the last of all, the last evaluation, the last with
    a speed and with a return. The others are not decoded: `status` looks at thousands of jobs. Raises RecordError.
    """
    try:
        for window in (LATEST // 16, LATEST):
            data, whole = tail_lines(paths.text(METRICS), window)
            found = [data.rfind(mark) for mark in _TELLING]
            if whole or min(found) >= 0:
                break
    except OSError as error:
        raise RecordError(f"{paths.metrics}: can't be read: {error.strerror}") from error
    if not data.startswith(b'{"step":') or found[0] < 0:  # written by something else, or before it had a speed
        return latest_rows(paths)
    starts = {data.rfind(b"\n", 0, place) + 1 for place in (*found, len(data) - 1) if place >= 0}
    lines = [data[start : data.find(b"\n", start) + 1] for start in sorted(starts)]
    try:
        return decode_jsonl(paths.text(METRICS), b"".join(lines))
    except RecordError:
        return latest_rows(paths)  # which names the line


_TELLING = (b'"steps_per_s":', b'"split":"eval"', b'"return":')


def eval_rows(paths: JobPaths) -> list[Row]:
    """Every evaluation by rising step, without those that a restarted attempt did again or is about to.

    Rows of the training are told by their first bytes and not decoded: there may be a hundred of them for each
    evaluation. A last line without its end, which is being written or was torn by a crash, is left out.
    Raises RecordError with file and line for a whole line that is no JSON object.
    """
    try:
        data = read_whole(paths.metrics)
    except FileNotFoundError:
        return []
    lines = _eval_lines(data[: data.rfind(b"\n") + 1])
    if lines is not None:
        try:
            return decode_jsonl(paths.metrics, b"\n".join(lines) + b"\n")
        except RecordError:  # told below, with the number of its line
            pass
    rows, _ = read_jsonl(paths.metrics)
    return without_superseded(row for row in rows if row.get("split") == "eval")


def _eval_lines(data: bytes) -> list[bytes] | None:
    """The lines of the evaluations that count; None where a line does not begin as this tool writes it."""
    kept: list[tuple[int, bytes]] = []
    for line in data.split(b"\n"):
        head = _HEAD.match(line)
        if head is None:
            if line.strip():
                return None
            continue
        step, is_eval = int(head[1]), head[2] == b"eval"
        # A row of the training at the same step belongs to the evaluation there, before it or after it.
        while kept and (kept[-1][0] >= step if is_eval else kept[-1][0] > step):
            kept.pop()
        if is_eval:
            kept.append((step, line))
    return [line for _, line in kept]


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
    """The rows by rising step. A job that continued from a checkpoint does some steps again: the rows written
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


def without_replaced(rows: Iterable[Row]) -> list[Row]:
    """All rows, of training and evaluation, but those at steps that a later attempt did again.

    Within one attempt several rows may be of one step: those of several environments, and an evaluation.
    """
    stretches: list[list[Row]] = []
    for row in rows:
        if not stretches or row.get("attempt") != stretches[-1][-1].get("attempt"):
            stretches.append([])
        stretches[-1].append(row)
    kept: list[Row] = []
    again: int | None = None  # the first step of all later attempts
    for stretch in reversed(stretches):
        steps = [(row, as_int(row.get("step"))) for row in stretch]
        kept += [row for row, step in reversed(steps) if again is None or step is None or step < again]
        again = min((step for step in (again, *(step for _, step in steps)) if step is not None), default=None)
    return kept[::-1]


def opponents_of(row: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The opponents of a row, each with the suffix of its keys: none where there was a single one."""
    if isinstance(row.get("opponent"), str) and as_float(row.get("win")) is not None:
        return [(str(row["opponent"]), "")]
    names = [key.removeprefix("win_") for key in row if key.startswith("win_") and f"draw_{key[4:]}" in row]
    return [(name, f"_{name}") for name in names]


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
