"""Job logs that somebody wrote by hand: which lines belong to which job. Pure functions, bytes in and out.

A job's entry begins with a heading that names its id, with or without a date or a state, and continues to the next
heading of its level or above:

    ##### 1971498 - 2026-01-23_08-51-48
    - run without shaping

Lines pasted out of `squeue`, with `-> what it is` behind them, name jobs too.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
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
_DEEPEST = 6  # levels of headings
# An id at the beginning of a line, behind marks of any kind, a word for a job, a date or the number of a list's item:
# `**1980002** …`, `1980003: …`, `- 1980004 …`, `SLURM 1980005`, `2026-02-03 1980006`, `slurm-1980007.out`.
_LOOSE_ID = re.compile(
    r"(?:[^\w<]|_|<[a-z]+>|x(?=\])|[0-9]{1,3}[.)][ \t]|"
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}(?:[ _T][0-9]{2}[:-][0-9]{2}(?:[:-][0-9]{2})?)?(?![0-9])|"
    r"(?:slurm|job|run|array|task|(?:job)?id|experiment|exp|nr|no|number|log)(?![a-z]))*?"
    rf"(?P<id>(?<![0-9a-z])[1-9][0-9]{{4,18}}(?:_[0-9]{{1,9}}(?![0-9a-z]))?|{_LOCAL})"
    r"(?![0-9a-z]|[.,/][0-9]|[ \t]*%)",
    re.IGNORECASE,
)
_TO_DO = re.compile(
    r"(?:#{1,6}[ \t]+)?[*_]*(?:(?:still |left |things )?to[ -]?dos?|next(?: steps?)?|(?:open |more )?ideas?|later|"
    r"(?:open )?(?:questions?|points?|issues?)|notes? to self|plans?|remaining|things to try|"
    r"offene?(?: punkte| fragen)?|noch zu tun|zu tun|ideen|fragen|nächste schritte)(?: list)?"
    r"[*_]*[ \t]*(?::.*|[*_ \t]*)|"
    r"[-*+][ \t]+\[ \][ \t].*",
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
class Doubt:
    """A line of a log that is no heading, and seems to begin the entry of a job, or a list that belongs to none."""

    offset: int
    line: int
    text: str
    job_id: str | None
    """The job that it seems to name; None for the list."""
    owner: str | None
    """The job whose entry it would be part of; None where it would belong to none."""


@dataclass(frozen=True)
class PastedJob:
    """A job in a pasted table of `squeue`."""

    job_id: str
    facts: str
    """What squeue said, its columns apart by one blank."""
    what: str
    """What somebody wrote behind it; may be empty."""


def split_log(data: bytes, begins: Mapping[int, str | None] | None = None) -> list[Piece]:
    """The log in pieces that make it up again when joined, whatever is in it.

    `begins` are offsets of lines that begin a piece though they are no job's heading: an entry of the job given, or
    lines of none.
    """
    begins = {} if begins is None else begins
    pieces: list[Piece] = []
    start, level, owner = 0, 0, None
    for offset, line in _lines_outside_fences(data):
        heading = _HEADING.match(line)
        if offset in begins:
            depth, job_id = _DEEPEST, begins[offset]
        elif heading is None:
            continue
        else:
            depth, job_id = len(heading[1]), _job_of(heading[2])
            if job_id is None and (owner is None or depth > level):
                continue
        if offset > start:
            pieces.append(Piece(owner, data[start:offset]))
        start, level, owner = offset, depth, job_id
    if start < len(data):
        pieces.append(Piece(owner, data[start:]))
    return pieces


def doubtful_lines(data: bytes) -> list[Doubt]:
    """Lines that would fall to the job above though they seem to begin something else: with the id of a job that has no
    heading in this log, or, in the last entry, a list of things to do.

    A number counts as an id where it has as many digits as those of the headings, and is not a round one.
    """
    headings = {piece.job_id for piece in split_log(data) if piece.job_id is not None}
    lengths = {len(job_id.partition("_")[0]) for job_id in headings if not job_id.startswith("local-")}
    found: list[Doubt] = []
    owner, level = None, 0
    entry, within = 0, False  # where the last entry begins, were all in doubt to begin one, and whether it continues
    for offset, line in _lines_outside_fences(data):
        heading, text = _HEADING.match(line), line.decode(errors="replace").rstrip()
        job_id = None if heading is None else _job_of(heading[2])
        if heading is not None and (job_id is not None or (owner is not None and len(heading[1]) <= level)):
            owner, level, entry, within = job_id, len(heading[1]), offset, job_id is not None
        if job_id is not None or _QUEUE.fullmatch(text):
            continue
        number = data.count(b"\n", 0, offset) + 1
        loose = _LOOSE_ID.match(text)
        if loose is not None and _is_new_id(loose["id"], headings, lengths):
            found.append(Doubt(offset, number, text.strip(), loose["id"], owner))
            entry, within = offset, True
        elif within and _TO_DO.fullmatch(text):
            found.append(Doubt(offset, number, text.strip(), None, owner))
    # A list that an entry follows is of the job above; of that which closes the log, the first line begins it.
    lists = [doubt for doubt in found if doubt.job_id is None and doubt.offset > entry][:1]
    return [*(doubt for doubt in found if doubt.job_id is not None), *lists]


def _is_new_id(text: str, headings: Collection[str], lengths: Collection[int]) -> bool:
    if text in headings or not is_job_id(text):
        return False
    number = text.partition("_")[0]
    return text.startswith("local-") or ((not lengths or len(number) in lengths) and not number.endswith("000"))


def queue_lines(data: bytes) -> list[PastedJob]:
    """The jobs in pasted tables of `squeue`, each once, also where a table stands in a code fence."""
    found: dict[str, PastedJob] = {}
    for raw in data.split(b"\n"):
        match = _QUEUE.fullmatch(raw.decode(errors="replace"))
        if match is None:
            continue
        job_id = match["array"] + (match["task"] or "")
        line = PastedJob(job_id, " ".join(match["facts"].split()), match["what"] or "")
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
