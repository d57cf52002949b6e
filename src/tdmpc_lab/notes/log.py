"""All notes together: in their order, and those that were asked for."""

from __future__ import annotations

import os
import re
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from tdmpc_lab.errors import NoteError, UsageError
from tdmpc_lab.jobs.ids import is_job_id, is_slurm_id, natural_key
from tdmpc_lab.notes.entries import Entry, read_entry


@dataclass(frozen=True)
class Filter:
    """Which entries are wanted; all that is given must hold."""

    experiment: str | None = None
    state: str | None = None
    verdict: str | None = None
    """good, bad, unclear, or none."""
    text: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    """The moment before which it was submitted."""

    def takes(self, entry: Entry) -> bool:
        """Whether the entry is wanted. An entry without a date has that of the one before it; see `in_order`."""
        judgement = "none" if entry.verdict is None else entry.verdict.judgement
        return (
            (self.experiment is None or entry.experiment == self.experiment)
            and (self.state is None or (entry.state or "unknown").lower() == self.state.lower())
            and (self.verdict is None or judgement == self.verdict)
            and (self.text is None or self.text.lower() in entry.text.lower())
        )

    def takes_time(self, moment: datetime | None) -> bool:
        """Whether a job of this moment is wanted; one of no known time only where no time is asked for."""
        if moment is None:
            return self.since is None and self.until is None
        return (self.since is None or moment >= self.since) and (self.until is None or moment < self.until)


def read_log(folder: Path) -> tuple[list[Entry], list[str]]:
    """The entries of all notes, oldest first, and what is wrong with notes that can't be read or are broken.

    Where there is a note of a whole job array, of its tasks only those have an entry of which a person said something.
    """
    try:
        names = {entry.name.removesuffix(".md") for entry in os.scandir(folder) if entry.name.endswith(".md")}
    except (FileNotFoundError, NotADirectoryError):
        return [], []
    entries: list[Entry] = []
    problems: list[str] = []
    for job_id in filter(is_job_id, names):
        try:
            entry = read_entry(folder / f"{job_id}.md")
        except NoteError as error:
            problems.append(str(error))
            continue
        of_array = "_" in job_id and job_id.partition("_")[0] in names
        if of_array and not (entry.words or entry.verdict or entry.problem):
            continue
        if entry.problem is not None:
            problems.append(f"{folder / job_id}.md: {entry.problem}")
        entries.append(entry)
    return [entry for entry, _ in in_order(entries)], problems


def in_order(entries: Iterable[Entry]) -> list[tuple[Entry, datetime | None]]:
    """Oldest first, each with its time: of an entry without a date that of the SLURM job before it, by number."""
    known = list(entries)
    dated = sorted(
        (natural_key(entry.id), entry.time) for entry in known if entry.time is not None and is_slurm_id(entry.id)
    )
    keys = [key for key, _ in dated]

    def moment(entry: Entry) -> datetime | None:
        if entry.time is not None or not dated or not is_slurm_id(entry.id):
            return entry.time
        return dated[max(0, bisect_right(keys, natural_key(entry.id)) - 1)][1]

    timed = [(entry, moment(entry)) for entry in known]
    return sorted(timed, key=lambda pair: (pair[1] or datetime.min, natural_key(pair[0].id)))


def choose(entries: Sequence[Entry], wanted: Filter) -> list[Entry]:
    """The wanted ones, in order."""
    return [entry for entry, moment in in_order(entries) if wanted.takes(entry) and wanted.takes_time(moment)]


def unjudged(entries: Sequence[Entry]) -> list[Entry]:
    """The entries of jobs that are over and that nobody has judged yet; an array is judged as a whole."""
    ids = {entry.id for entry in entries}
    return [
        entry
        for entry in entries
        if entry.verdict is None and entry.ended and not ("_" in entry.id and entry.id.partition("_")[0] in ids)
    ]


_AGO = re.compile(r"([0-9]{1,5})\s*(m|h|d|w)")
_UNITS = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def parse_moment(text: str, now: datetime, *, end: bool = False) -> datetime:
    """The moment meant by `2026-01-22`, `2026-01-22 22:05`, a heading's `2026-01-22_22-05-49`, or `7d`, `12h` ago.

    A day alone is its beginning, with `end` its end. Raises UsageError for anything else.
    """
    if match := _AGO.fullmatch(text.strip()):
        return now - timedelta(**{_UNITS[match[2]]: int(match[1])})
    for form in ("%Y-%m-%d", "%Y-%m-%d %H:%M", "%Y-%m-%d %H:%M:%S", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%d_%H-%M-%S"):
        try:
            moment = datetime.strptime(text.strip(), form)
        except ValueError:
            continue
        return moment + timedelta(days=1) if end and form == "%Y-%m-%d" else moment
    raise UsageError(f"{text!r} is no time; write 2026-01-22, '2026-01-22 22:05', or 7d, 12h for so long ago")
