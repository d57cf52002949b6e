"""Notes as entries of the job log, in the lines of the roll-up; all of them in order, and those that were asked for."""

from __future__ import annotations

import os
import re
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from tdmpc_lab.errors import NoteError, UsageError
from tdmpc_lab.files import read_whole
from tdmpc_lab.jobs.ids import is_job_id, is_slurm_id, natural_key
from tdmpc_lab.notes.handwritten import heading_id, heading_rest
from tdmpc_lab.notes.note import has_markers, take_apart
from tdmpc_lab.notes.verdict import Verdict, is_verdict_line, parse_verdict

_OUTCOME = re.compile(r"- (COMPLETED|FAILED|CANCELLED|TIMEOUT|RUNNING|UNKNOWN|waiting)\b")
_COUNTS = re.compile(r"- (?:[0-9]+ [A-Z]+(?:, |$))+")  # of an array's tasks
_WHAT = re.compile(r"- (?P<experiment>\S+) · (?:(?P<seed>seed -?[0-9]+) · )?.*?\b[0-9,]+ steps · ")
_ORIGIN = re.compile(r" · (?P<how>goes on from|continues from|rerun of) \[?(?P<job>[\w-]+)")
_SETTINGS = ("- sweep: ", "- sweep of ", "- overrides: ")
_ONLY_IN_NOTES = ("- again:", "- folders ", "- warning:", "- video ", "- curve of the ", "- fix: ", "- code vs ")
_DATE = re.compile(
    r"(?P<year>[0-9]{4})-(?P<month>[0-9]{1,2})-(?P<day>[0-9]{1,2})"
    r"(?:[_T ]+(?P<hour>[0-9]{1,2})[-:](?P<minute>[0-9]{2})(?:[-:](?P<second>[0-9]{2}))?)?"
)
_GERMAN_DATE = re.compile(r"(?P<day>[0-9]{1,2})\.(?P<month>[0-9]{1,2})\.(?P<year>[0-9]{4})")
_STATES = {
    *("killed", "cancelled", "canceled", "failed", "crashed", "broken", "timeout", "completed", "done", "finished"),
    *("running", "pending", "stopped", "aborted", "abgebrochen", "fertig", "läuft", "gestoppt"),
}
_HEADING = re.compile(r"#{1,6}[ \t]")
_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})")
_IMPORTED = "<!-- tdmpc-lab:imported "


@dataclass(frozen=True)
class Entry:
    """One job in the log."""

    id: str
    heading: str
    """`##### 2004711 - 2026-02-03_09-14-22`, or as somebody wrote it."""
    lines: tuple[str, ...]
    """The tool's items and a user's lines, without a verdict of the command: what the roll-up shows."""
    words: tuple[str, ...]
    """A user's lines, those of an imported log included; without what stands in code fences."""
    time: datetime | None = None
    """When it was submitted, in this machine's time; None where the heading has no date."""
    state: str | None = None
    """As the note says: COMPLETED, RUNNING, …; of an imported entry the word in its heading (`killed`)."""
    experiment: str | None = None
    verdict: Verdict | None = None
    imported: bool = False
    """Whether a hand-written log has an entry of it."""
    problem: str | None = None
    """What is wrong with the note's markers."""
    text: str = ""
    """The whole note."""

    @property
    def about(self) -> str:
        """What the job is: the first item of its list."""
        return self.bullets[0] if self.bullets else ""

    @property
    def bullets(self) -> tuple[str, ...]:
        """The items of its list, without their dashes: the tool's and a user's."""
        return tuple(line[2:].strip() for line in self.lines if line.startswith(("- ", "* ")))

    @property
    def ended(self) -> bool:
        """Whether nothing more is to be expected of it, as far as the note knows."""
        return self.state not in ("RUNNING", "PENDING", "UNKNOWN", "running", "pending", "läuft")

    def as_dict(self) -> dict[str, Any]:
        """For scripts."""
        return {
            "id": self.id,
            "time": None if self.time is None else self.time.isoformat(),
            "experiment": self.experiment,
            "state": self.state,
            "about": self.about,
            **(dict.fromkeys(("verdict", "because", "causes")) if self.verdict is None else self.verdict.as_dict()),
            "bullets": list(self.bullets),
            "words": list(self.words),
            "imported": self.imported,
            "problem": self.problem,
        }


def read_entry(path: Path) -> Entry:
    """The entry in a note. Raises NoteError when it can't be read."""
    try:
        return parse_entry(path.stem, read_whole(path))
    except OSError as error:
        raise NoteError(f"{path}: the note can't be read: {error.strerror}") from error


def parse_entry(job_id: str, note: bytes) -> Entry:
    """The entry in a note's bytes, whatever is in them; broken markers are its `problem`."""
    machine: list[str] = []
    rest, problem, said = note, None, b""
    if has_markers(note):
        try:
            parts = take_apart(note)
        except NoteError as error:
            problem = str(error).partition("; nothing")[0].removeprefix("the note: ")
        else:
            rest, said = parts.before + b"\n" + parts.after, parts.verdict
            machine = parts.block.decode(errors="replace").split("\n")[1:-1]
    text = note.decode(errors="replace")
    heading, shown, experiment, state = _machine_lines(job_id, machine)
    words, by_hand = _words(job_id, rest.decode(errors="replace"))
    spoken = [parse_verdict(line) for line in words if is_verdict_line(line)]
    if said:
        spoken.append(parse_verdict(said.decode(errors="replace"), by_command=True))
    own_heading = heading or by_hand or f"##### {job_id}"
    tail = heading_rest(own_heading)
    return Entry(
        id=job_id,
        heading=own_heading,
        lines=(*shown, *words),
        words=words,
        time=_time(tail),
        state=state or (_state(tail) if not heading else None),
        experiment=experiment,
        verdict=spoken[-1] if spoken else None,
        imported=f"\n{_IMPORTED}" in f"\n{text}",
        problem=problem,
        text=text,
    )


def rollup_lines(entry: Entry) -> list[str]:
    """The entry as it stands in the roll-up: heading, items, verdict."""
    said = [entry.verdict.line] if entry.verdict is not None and entry.verdict.by_command else []
    return [entry.heading, *entry.lines, *said]


def is_outcome(line: str) -> bool:
    """Whether this is the tool's item on the state of a job."""
    return _OUTCOME.match(line) is not None


def state_of_all(states: Iterable[str]) -> str | None:
    """The state of an array from those of its tasks: the first of these that there is."""
    found = set(states)
    order = ("RUNNING", "PENDING", "UNKNOWN", "FAILED", "TIMEOUT", "CANCELLED", "COMPLETED")
    return next((state for state in order if state in found), None)


def _machine_lines(job_id: str, block: list[str]) -> tuple[str, tuple[str, ...], str | None, str | None]:
    """Of the tool's block: heading, the items for the roll-up, experiment, state."""
    heading, experiment, state = "", None, None
    shown: list[str] = []
    listed = True  # until the list ends: what follows it are tables and tracebacks, or an array's tasks
    for raw in block:
        line = raw.rstrip("\r")
        if line.startswith("#") and not heading and heading_id(line) == job_id:
            heading = line
        elif not line.startswith("- "):
            listed = not shown
        elif not listed:
            if line.startswith(f"- `{job_id}_"):
                shown.append(line)
        elif (what := _WHAT.match(line)) is not None and experiment is None:
            experiment = what["experiment"].lstrip("\\")
            shown = _with_identity(shown, what, _ORIGIN.search(line, what.end() - 3))
        elif not line.startswith(_ONLY_IN_NOTES):
            if shown and state is None:
                state = _stated(line)
            shown.append(line)
    return heading, tuple(shown), experiment, state


def _with_identity(shown: list[str], what: re.Match[str], origin: re.Match[str] | None) -> list[str]:
    """The items so far with seed and origin, which tell jobs of one experiment apart, behind those on its settings;
    where there are none, below what the job is. A seed that these name already is not told twice."""
    places = [index for index, line in enumerate(shown) if index and line.startswith(_SETTINGS)]
    seed_told = any(re.search(r"\btrain\.seed\b", shown[index]) for index in places)
    parts = [] if what["seed"] is None or seed_told else [what["seed"]]
    parts += [] if origin is None else [f"{origin['how']} {origin['job']}"]
    if not parts:
        return shown
    if not places:
        return [*shown[:1], f"- {' · '.join(parts)}", *shown[1:]]
    last = places[-1]
    return [*shown[:last], " · ".join([shown[last], *parts]), *shown[last + 1 :]]


def _stated(line: str) -> str | None:
    """The state that an item tells, if it is the one that does."""
    if (outcome := _OUTCOME.match(line)) is not None:
        return "PENDING" if outcome[1] == "waiting" else outcome[1]
    return state_of_all(re.findall("[A-Z]+", line)) if _COUNTS.fullmatch(line) else None


def _words(job_id: str, text: str) -> tuple[tuple[str, ...], str]:
    """A user's lines outside of code fences, without headings, empty lines and the tool's comments; and the first
    heading that names the job."""
    kept: list[str] = []
    heading, fence = "", ""
    for raw in text.split("\n"):
        line = raw.strip("\ufeff\r").rstrip()
        if not line:
            continue
        if (marks := _FENCE.match(line)) is not None:
            if not fence:
                fence = marks[1]
            elif marks[1].startswith(fence) and line.strip() == marks[1]:
                fence = ""
        elif fence:
            continue
        elif _HEADING.match(line):
            heading = heading or (line if heading_id(line) == job_id else "")
        elif not line.startswith("<!-- tdmpc-lab:"):
            kept.append(line)
    return tuple(kept), heading


def _time(tail: str) -> datetime | None:
    match = _DATE.search(tail) or _GERMAN_DATE.search(tail)
    if match is None:
        return None
    numbers = {name: int(value) for name, value in match.groupdict().items() if value is not None}
    try:
        return datetime(**numbers)  # type: ignore[arg-type]
    except ValueError:
        return None


def _state(tail: str) -> str | None:
    """The word for a state in what a heading says behind its id."""
    words = re.findall(r"\w+", _GERMAN_DATE.sub(" ", _DATE.sub(" ", tail)))
    return next((word for word in words if word.lower() in _STATES), None) if len(words) <= 3 else None


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

    Where there is a note of a whole job array, of its tasks only those have an entry of which a user said something.
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
