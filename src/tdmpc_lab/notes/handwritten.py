"""Job logs that somebody wrote by hand: which lines belong to which job. Pure functions, bytes in and out.

A job's entry begins with a heading that names its id, with or without a date or a state, and goes on to the next
heading of its level or above:

    ##### 1971498 - 2026-01-23_08-51-48
    - run without shaping

Lines pasted out of `squeue`, with `-> what it is` behind them, name jobs too.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from tdmpc_lab.jobs.ids import is_job_id

_HEADING = re.compile(rb"(#{1,6})[ \t]+(.*)", re.DOTALL)
_FENCE = re.compile(rb"[ ]{0,3}(`{3,}|~{3,})")
_LOCAL = r"local-[0-9]{8}-[0-9]{6}-[0-9]{3}"
# A short number may be a year or count something, unless a date or nothing but a dash and a word comes after it.
_TITLE = re.compile(
    rf"(?:job[ \t:#]*)?(?:(?P<long>[1-9][0-9]{{4,18}}(?:_[0-9]{{1,9}})?|{_LOCAL})(?=$|[\s:,;(–—-])"
    r"|(?P<short>[1-9][0-9]{0,3}(?:_[0-9]{1,9})?)(?=[ \t]+-[ \t]+(?:[0-9]{4}-[0-9]{2}-[0-9]{2}|[a-z]+[ \t]*$)))",
    re.IGNORECASE,
)
_QUEUE = re.compile(
    r"[>\s]*(?P<array>[1-9][0-9]{2,18})(?P<task>_[0-9]{1,9}(?![0-9]))?(?:_\[[^\]\s]*\])?[ \t]+"
    r"(?P<facts>\S+[ \t]+\S+[ \t]+\S+[ \t]+(?:[A-Z]{1,2}|[A-Z_]{6,})[ \t]+(?:[0-9]+-)?[0-9]+:[0-9:]+\b.*?)"
    r"(?:[ \t]*-{1,2}>[ \t]*(?P<what>.*?))?\s*"
)


@dataclass(frozen=True)
class Piece:
    """A stretch of a log: the entry of a job, or lines that belong to none."""

    job_id: str | None
    content: bytes


@dataclass(frozen=True)
class QueueLine:
    """A job in a pasted table of `squeue`."""

    job_id: str
    facts: str
    """What squeue said, its columns apart by one blank."""
    what: str
    """What somebody wrote behind it; may be empty."""


def split_log(data: bytes) -> list[Piece]:
    """The log in pieces that make it up again when joined, whatever is in it."""
    pieces: list[Piece] = []
    start, level, owner = 0, 0, None
    for offset, line in _lines_outside_fences(data):
        heading = _HEADING.match(line)
        if heading is None:
            continue
        depth, job_id = len(heading[1]), _job_of(heading[2])
        if job_id is None and (owner is None or depth > level):
            continue
        if offset > start:
            pieces.append(Piece(owner, data[start:offset]))
        start, level, owner = offset, depth, job_id
    if start < len(data):
        pieces.append(Piece(owner, data[start:]))
    return pieces


def queue_lines(data: bytes) -> list[QueueLine]:
    """The jobs in pasted tables of `squeue`, each once, also where a table stands in a code fence."""
    found: dict[str, QueueLine] = {}
    for raw in data.split(b"\n"):
        match = _QUEUE.fullmatch(raw.decode(errors="replace"))
        if match is None:
            continue
        job_id = match["array"] + (match["task"] or "")
        line = QueueLine(job_id, " ".join(match["facts"].split()), match["what"] or "")
        if is_job_id(job_id) and not (job_id in found and found[job_id].what):
            found[job_id] = line
    return list(found.values())


def heading_id(line: str) -> str | None:
    """The job that a line is the heading of; None for every other line."""
    heading = _HEADING.match(line.encode(errors="replace"))
    return None if heading is None else _job_of(heading[2])


def heading_rest(line: str) -> str:
    """What a job's heading says behind the id: ` - killed`."""
    title = line.lstrip("#").lstrip()
    match = _TITLE.match(title)
    return title if match is None else title[match.end() :]


def _job_of(title: bytes) -> str | None:
    match = _TITLE.match(title.decode(errors="replace").rstrip())
    if match is None:
        return None
    job_id: str = match["long"] or match["short"]
    return job_id if is_job_id(job_id) else None


def _lines_outside_fences(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Every line with its offset, those in a code fence left out. A fence that never closes is none."""
    lines = data.split(b"\n")
    offset, index = 0, 0
    while index < len(lines):
        if (opening := _FENCE.match(lines[index])) is not None:
            closing = _closing(lines, index, opening[1])
            if closing is not None:
                offset += sum(len(line) + 1 for line in lines[index : closing + 1])
                index = closing + 1
                continue
        yield offset, lines[index]
        offset += len(lines[index]) + 1
        index += 1


def _closing(lines: list[bytes], opening: int, fence: bytes) -> int | None:
    """The line that closes a fence."""
    for index in range(opening + 1, len(lines)):
        match = _FENCE.match(lines[index])
        if match is not None and match[1].startswith(fence) and not lines[index][match.end() :].strip():
            return index
    return None
