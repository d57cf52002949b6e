"""`notes/JOBS.md`: the whole log in one file, in the style of a hand-written one. Pure functions.

Its first line holds a hash of the rest. Where that differs, a person has written into it, and it is not replaced
before his lines have gone into the notes.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tdmpc_lab.errors import NoteError
from tdmpc_lab.notes.entries import Entry, is_outcome, rollup_lines
from tdmpc_lab.notes.handwritten import heading_id
from tdmpc_lab.notes.note import add_bullet, add_line, has_markers, put_verdict
from tdmpc_lab.notes.verdict import is_stated, is_verdict_line, parse_verdict
from tdmpc_lab.text import count

_HEAD = re.compile(rb"<!-- tdmpc-lab:rollup ([0-9a-f]{16}) [^\n]*-->\r?\n")
_SHOWN = 20


@dataclass(frozen=True)
class Added:
    """Lines that a person wrote into the roll-up, below the heading of a job or of none."""

    job_id: str | None
    lines: tuple[str, ...]


class RollupEditedError(NoteError):
    """A person has written into the roll-up; `added` are his lines. Nothing was written.

    `foreign`: the tool has not written this file at all.
    """

    def __init__(self, message: str, added: Sequence[Added], *, foreign: bool = False) -> None:
        self.added = tuple(added)
        self.foreign = foreign
        super().__init__(message)


def rollup(entries: Iterable[Entry]) -> bytes:
    """The file's content for these entries, in their order."""
    body = "".join("\n" + "\n".join(rollup_lines(entry)) + "\n" for entry in entries).encode(errors="replace")
    head = (
        f'<!-- tdmpc-lab:rollup {_hash(body)} | made from the notes beside it; to add to one: tdmpc-lab note ID "…" -->'
    )
    return head.encode() + b"\n" + body


def check_unedited(name: str, now: bytes, written: bytes, fresh: bytes) -> None:
    """Return if the file is as the tool wrote it, so that it may be replaced.

    `written` is the tool's own copy of what it wrote last (empty where there is none), `fresh` what it would write
    now; they tell which lines are a person's.

    Raises RollupEditedError with these lines.
    """
    head = _HEAD.match(now)
    if not now.strip() or now == fresh or (head is not None and head[1].decode() == _hash(now[head.end() :])):
        return
    if head is None:
        raise RollupEditedError(
            f"{name} was not written by tdmpc-lab (its first line says nothing of it), so it is left alone; take it in "
            f"with: tdmpc-lab notes import {name}, and then move it away",
            (),
            foreign=True,
        )
    added = _added(now, written if _is_whole(written, head[1]) else fresh)
    said = [f"  {one.job_id or 'no job'}: {line}" for one in added for line in one.lines]
    more = [f"  and {count(len(said) - _SHOWN, 'more line')}"] if len(said) > _SHOWN else []
    what = "\n".join(["was edited, and is left alone:", *said[:_SHOWN], *more]) if said else "lost some of its lines."
    raise RollupEditedError(
        f"{name} {what}\nput these lines into the jobs' own notes and write it anew: tdmpc-lab notes --rollup --move",
        added,
    )


def move_into(note: bytes, lines: Iterable[str], name: str) -> bytes:
    """A job's note with lines that a person wrote into the roll-up. A verdict in the tool's form takes the place of
    an earlier one. Raises NoteError where the note's markers are broken."""
    for line in lines:
        if is_verdict_line(line) and is_stated(line) and has_markers(note):
            said = parse_verdict(line)
            note = put_verdict(note, said.line.strip(), name)
        elif line.startswith(("- ", "* ")):
            note = add_bullet(note, line[2:], name)
        else:
            note = add_line(note, line, name)
    return note


def _added(edited: bytes, written: bytes) -> list[Added]:
    """The lines of `edited` that are not in the same entry of `written`."""
    known = dict(_by_job(written))
    added = []
    for job_id, lines in _by_job(edited):
        left = Counter(line.rstrip() for line in known.get(job_id, []))
        own: list[str] = []
        for line in lines:
            if left[line.rstrip()] > 0:
                left[line.rstrip()] -= 1
            elif line.strip() and not is_outcome(line):
                own.append(line)
        if own:
            added.append(Added(job_id, tuple(own)))
    return added


def _by_job(content: bytes) -> list[tuple[str | None, list[str]]]:
    """The lines below each job's heading, the headings left out; entries of one job together."""
    found: dict[str | None, list[str]] = {None: []}
    lines = found[None]
    for raw in _HEAD.sub(b"", content, count=1).decode(errors="replace").split("\n"):
        line = raw.removesuffix("\r")
        job_id = heading_id(line)
        if job_id is None:
            lines.append(line)
        else:
            lines = found.setdefault(job_id, [])
    return list(found.items())


def _is_whole(copy: bytes, wanted: bytes) -> bool:
    """Whether a copy is of the roll-up with this hash, and whole."""
    head = _HEAD.match(copy)
    return head is not None and head[1] == wanted and _hash(copy[head.end() :]).encode() == wanted


def _hash(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()[:16]
