"""`notes import` and `notes export`: hand-written logs become entries of the job log, and come out again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from tdmpc_lab.app.joblog.edit import ensure_note, lock_of
from tdmpc_lab.errors import NoteError, UsageError
from tdmpc_lab.files import file_lock, write_atomic
from tdmpc_lab.jobs.find import is_recorded
from tdmpc_lab.jobs.paths import Project
from tdmpc_lab.notes.adopt import (
    Placed,
    assemble,
    contains_lines,
    foreign_marker,
    ids_in,
    known_key,
    lines_of_no_job,
    log_name,
    merge_entry,
    merge_queue_line,
    place,
    skeleton,
)
from tdmpc_lab.notes.handwritten import Doubt, Piece, doubtful_lines, queue_lines, split_log
from tdmpc_lab.notes.note import change_note
from tdmpc_lab.text import shorten

_SHOWN = 12


@dataclass
class Imported:
    """What an import did."""

    log: str
    """Name of the log among the imported ones."""
    jobs: dict[str, str] = field(default_factory=dict)
    """What became of each job's note: new, merged, unchanged."""
    lines_kept: int = 0
    """Lines of no job that hold anything."""

    @property
    def changed(self) -> bool:
        """Whether anything was written."""
        return any(what != "unchanged" for what in self.jobs.values())

    def as_dict(self) -> dict[str, Any]:
        """For scripts."""
        jobs = [{"id": job_id, "note": f"notes/{job_id}.md", "what": what} for job_id, what in self.jobs.items()]
        return {"log": self.log, "jobs": jobs, "lines_kept": self.lines_kept}


class DoubtfulLinesError(UsageError):
    """Lines of a log seem to begin something else than the entry that they would be part of; nothing was done."""

    def __init__(self, file: Path, doubts: Sequence[Doubt]) -> None:
        ids = [doubt for doubt in doubts if doubt.job_id is not None]
        told = []
        if ids:
            told.append(f"{len(ids)} line{' looks like a job id' if len(ids) == 1 else 's look like job ids'}")
        if len(ids) < len(doubts):
            told.append("a list at the end looks as if it belonged to no job")
        shown = [
            f"  line {one.line}: {shorten(one.text, 70)}  (part of {one.owner or 'no entry'} as it is)"
            for one in doubts[:_SHOWN]
        ]
        if len(doubts) > _SHOWN:
            shown.append(f"  and {len(doubts) - _SHOWN} more")
        super().__init__(
            "\n".join(
                [
                    f"{file}: {' and '.join(told)}, without a heading such as ##### 1971498 - 2026-01-23:",
                    *shown,
                    "--split: each begins an entry of its own, such a list is of no job; --as-is: of the entry above",
                ]
            )
        )


def import_log(project: Project, file: Path, *, split: bool | None = None) -> Imported:
    """Take a hand-written log into the notes: every job it names becomes an entry, every other line is kept.

    A note that exists gets the entry below what it holds. A log that was imported before is taken as the newer state
    of it; importing it unchanged changes nothing. `split`: whether lines that are in doubt begin entries of their own;
    what was said of a line at an earlier import of the log holds on.

    Raises:
        DoubtfulLinesError: there are such lines, and `split` is None.
        UsageError: there is no such file, or it holds lines that look like the tool's own.
        NoteError: a note can't be written; importing again continues from there.
    """
    try:
        data = file.read_bytes()
    except OSError as error:
        raise UsageError(f"{file}: can't be read: {error.strerror}") from error
    if line := foreign_marker(data):
        raise UsageError(
            f"{file}:{line}: this line looks like one that tdmpc-lab writes itself (<!-- tdmpc-lab:…); nothing was "
            "done. Import what people wrote, and take such lines out"
        )
    with file_lock(project.rollup_lock):
        return _import(project, data, file, split)


def _import(project: Project, data: bytes, file: Path, split: bool | None) -> Imported:
    names, stem = imported_names(project), log_name(file.stem)
    same = [name for name in names if _exported_or_none(project, name) == data]
    doubts = doubtful_lines(data)
    begins = {doubt.offset: doubt.job_id for doubt in doubts if split or _was_split(project, names, stem, doubt)}
    if split is None and not same and (unsettled := [doubt for doubt in doubts if doubt.offset not in begins]):
        raise DoubtfulLinesError(file, unsettled)
    pieces = split_log(data, begins)
    name, keep = (same[0], True) if same else _name_for(project, stem, pieces, names)
    done = Imported(name)
    done.lines_kept = sum(bool(line.strip()) for p in pieces if p.job_id is None for line in p.content.split(b"\n"))
    placed: list[Placed] = []
    for entry in place(pieces, name):
        if same:
            placed.append(entry)
            done.jobs[entry.job_id] = "unchanged"
            continue
        key = known_key(_note(project, entry.job_id), entry.content)
        found = entry if key is None else Placed(entry.job_id, key, entry.content)
        placed.append(found)
        _change(project, found.job_id, done, partial(merge_entry, entry=found))
    for line in queue_lines(data):
        if same:
            done.jobs.setdefault(line.job_id, "unchanged")
        else:
            path = str(project.note(line.job_id))
            _change(project, line.job_id, done, partial(merge_queue_line, line=line, name=path))
    if not (same or keep):
        project.imported_logs.mkdir(parents=True, exist_ok=True)
        write_atomic(_path(project, name), skeleton(pieces, placed))
    return done


def _was_split(project: Project, names: Sequence[str], stem: str, doubt: Doubt) -> bool:
    """Whether an earlier state of the log was taken in with this line as the beginning of something."""
    for name in names:
        if name == stem or name.removeprefix(f"{stem}-").isdigit():
            log = _path(project, name).read_bytes()
            if doubt.job_id is not None and doubt.job_id in ids_in(log):
                return True
            kept = {line.strip() for line in lines_of_no_job(log).decode(errors="replace").split("\n")}
            if doubt.job_id is None and doubt.text in kept:
                return True
    return False


def _change(project: Project, job_id: str, done: Imported, change: Callable[[bytes], bytes]) -> None:
    """Change a note, and put down what became of it."""
    if is_recorded(project, job_id):
        ensure_note(project, job_id)
    before = _note(project, job_id)
    after = change_note(project.note(job_id), change, lock_of(project, job_id))
    what = "unchanged" if after == before else "merged" if before else "new"
    if done.jobs.get(job_id, "unchanged") == "unchanged":
        done.jobs[job_id] = what


def _name_for(project: Project, stem: str, pieces: list[Piece], names: list[str]) -> tuple[str, bool]:
    """The name of the log that this is another state of, else a new one; and whether what is kept of its lines of no
    job holds all of these already."""
    text = b"".join(piece.content for piece in pieces if piece.job_id is None)
    ids = {piece.job_id for piece in pieces if piece.job_id is not None}
    for name in names:
        if name == stem or name.removeprefix(f"{stem}-").isdigit():
            old = _path(project, name).read_bytes()
            if ids <= set(ids_in(old)) and contains_lines(lines_of_no_job(old), text):
                return name, True
            if ids >= set(ids_in(old)) and contains_lines(text, lines_of_no_job(old)):
                return name, False
    free = (stem, *(f"{stem}-{number}" for number in range(2, len(names) + 3)))
    return next(name for name in free if name not in names), False


def export_log(project: Project, name: str | None = None) -> bytes:
    """An imported log with the entries as the notes hold them now; `name` may be left out where there is one only.

    Raises:
        UsageError: there is no such log, or several to choose from.
        NoteError: an entry is gone from its note.
    """
    names = imported_names(project)
    if not names:
        raise UsageError("no log was imported yet; the whole job log in one file: tdmpc-lab notes --rollup")
    if name is None and len(names) > 1:
        raise UsageError(f"several logs were imported: {', '.join(names)}; name one of them")
    wanted = names[0] if name is None else log_name(Path(name).stem) if name not in names else name
    if wanted not in names:
        raise UsageError(f"no log {name!r} was imported; there are: {', '.join(names)}")
    return _exported(project, wanted)


def imported_names(project: Project) -> list[str]:
    """The names of the imported logs."""
    return sorted(path.stem for path in project.imported_logs.glob("*.md"))


def _exported(project: Project, name: str) -> bytes:
    path = _path(project, name)
    try:
        return assemble(path.read_bytes(), lambda job_id: _note(project, job_id), str(path.relative_to(project.root)))
    except OSError as error:
        raise NoteError(f"{path}: can't be read: {error.strerror}") from error


def _exported_or_none(project: Project, name: str) -> bytes | None:
    try:
        return _exported(project, name)
    except NoteError:
        return None


def _note(project: Project, job_id: str) -> bytes:
    try:
        return project.note(job_id).read_bytes()
    except FileNotFoundError:
        return b""
    except OSError as error:
        raise NoteError(f"{project.note(job_id)}: the note can't be read: {error.strerror}") from error


def _path(project: Project, name: str) -> Path:
    return project.imported_logs / f"{name}.md"
