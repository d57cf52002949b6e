"""Taking a hand-written log into the notes, and giving it back. Pure functions, bytes in and out.

`import` cuts the log in pieces: what belongs to a job goes into that job's note, below a line that names the log; what
belongs to none stays together in `notes/imported/<log>.md`, with one line in the place of each entry. Each line has its
only truth in one of them, and `export` puts them together again.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from tdmpc_lab.errors import NoteError
from tdmpc_lab.notes.handwritten import PastedJob, Piece
from tdmpc_lab.notes.note import add_bullet, has_markers, take_apart

LOG_HEAD = (
    b"<!-- tdmpc-lab:log | the lines of an imported log that belong to no job; "
    b"`tdmpc-lab notes export` puts the jobs' entries in again -->\n"
)
_ENTRY = re.compile(rb"^<!-- tdmpc-lab:entry (?P<id>[\w-]+) (?P<key>[\w.#-]+) -->\n", re.MULTILINE)
_SEGMENT = re.compile(rb"^<!-- tdmpc-lab:imported (?P<key>[\w.#-]+) -->\r?\n", re.MULTILINE)
_OURS = re.compile(rb"^<!-- tdmpc-lab:.*", re.MULTILINE)


@dataclass(frozen=True)
class Placed:
    """An entry of a log, and the key under which it stands in its job's note."""

    job_id: str
    key: str
    content: bytes


def foreign_marker(data: bytes) -> int | None:
    """The number of the first line that looks like one of the tool's own, which no log may hold; None without."""
    match = _OURS.search(data)
    return None if match is None else data.count(b"\n", 0, match.start()) + 1


def place(pieces: Sequence[Piece], name: str) -> list[Placed]:
    """The entries among the pieces with their keys: the log's name, with a number where a job stands there again."""
    counts: dict[str, int] = {}
    placed = []
    for piece in pieces:
        if piece.job_id is not None:
            count = counts[piece.job_id] = counts.get(piece.job_id, 0) + 1
            placed.append(Placed(piece.job_id, name if count == 1 else f"{name}#{count}", piece.content))
    return placed


def skeleton(pieces: Sequence[Piece], placed: Iterable[Placed]) -> bytes:
    """What `notes/imported/<log>.md` holds: the lines of no job, and a line in the place of each entry."""
    entries = iter(placed)
    parts = [LOG_HEAD]
    for piece in pieces:
        if piece.job_id is None:
            parts.append(piece.content)
        else:
            entry = next(entries)
            parts.append(f"<!-- tdmpc-lab:entry {entry.job_id} {entry.key} -->\n".encode())
    return b"".join(parts)


def assemble(log: bytes, read_note: Callable[[str], bytes], name: str) -> bytes:
    """The log with the entries as the notes hold them now. `read_note` gives a job's note, empty where there is none.

    Raises NoteError where an entry's line, or the entry itself, is gone from its note.
    """
    body = log.removeprefix(LOG_HEAD)
    parts: list[bytes] = []
    end = 0
    for match in _ENTRY.finditer(body):
        parts.append(body[end : match.start()])
        job_id, key = match["id"].decode(), match["key"].decode()
        entry = entry_of(read_note(job_id), key)
        if entry is None:
            raise NoteError(
                f"the entry of {job_id} in {name} is gone: its note has no line '<!-- tdmpc-lab:imported {key} -->' "
                "any more; bring the note back, or take the entry's line out of the log"
            )
        more = match.end() < len(body)
        parts.append(entry + (b"\n" if more and entry and not entry.endswith(b"\n") else b""))
        end = match.end()
    return b"".join([*parts, body[end:]])


def entry_of(note: bytes, key: str) -> bytes | None:
    """An imported entry as it stands in a note, a verdict of the command at its end; None where there is none.

    The verdict goes with the last entry of the note.
    """
    found = _segment(note, key)
    if found is None:
        return None
    content = note[found[0] : found[1]]
    verdict = take_apart(note).verdict if has_markers(note) else b""
    if not verdict or found[1] < len(note) or verdict in content.replace(b"\r", b"").split(b"\n"):
        return content
    body = content.rstrip()
    rest = content[len(body) :]
    first_end = rest.find(b"\n") + 1
    line_end = b"\r\n" if b"\r\n" in content else b"\n"
    if not first_end:
        return body + rest + line_end + verdict
    return body + rest[:first_end] + verdict + line_end + rest[first_end:]


def merge_entry(note: bytes, entry: Placed) -> bytes:
    """The note with an entry of a log in it; nothing that it holds is lost.

    An entry that it has from the same log takes the place of its older self where all lines of that are in it; else
    the lines that are new go below. An entry that came word for word from another log is not put in again.
    """
    found = _segment(note, entry.key)
    if found is None:
        gap = b"\n" if note and not note.endswith(b"\n") else b""
        return note + gap + f"<!-- tdmpc-lab:imported {entry.key} -->\n".encode() + entry.content
    start, end = found
    old = note[start:end]
    if contains_lines(entry.content, old):
        gap = b"\n" if end < len(note) and not entry.content.endswith(b"\n") else b""
        return note[:start] + entry.content + gap + note[end:]
    known = {line.strip() for line in old.split(b"\n")}
    new = [line for line in entry.content.split(b"\n") if line.strip() and line.strip() not in known]
    if not new:
        return note
    gap = b"" if not old or old.endswith(b"\n") else b"\n"
    return note[:end] + gap + b"\n".join(new) + b"\n" + note[end:]


def known_key(note: bytes, content: bytes) -> str | None:
    """The key of an entry that the note holds word for word already."""
    for match in _SEGMENT.finditer(note):
        key = match["key"].decode()
        found = _segment(note, key)
        if found is not None and note[found[0] : found[1]] == content:
            return key
    return None


def merge_queue_line(note: bytes, line: PastedJob, name: str) -> bytes:
    """The note with what a pasted table says of its job: an entry of its own where there is no note yet, else what
    somebody wrote behind the line, unless it says so already."""
    if not note:
        what = [f"- {line.what}"] if line.what else []
        lines = [f"##### {line.job_id}", *what, f"- squeue: {line.facts}"]
        return ("\n".join(lines) + "\n").encode(errors="replace")
    if not line.what or line.what in note.decode(errors="replace"):
        return note
    return add_bullet(note, line.what, name)


def contains_lines(new: bytes, old: bytes) -> bool:
    """Whether all lines of `old` that hold anything stand in `new`, in their order."""
    lines = (line.rstrip() for line in new.split(b"\n"))
    return all(line in lines for line in (line.rstrip() for line in old.split(b"\n")) if line)


def lines_of_no_job(log: bytes) -> bytes:
    """A log's skeleton without its first line and the places of its entries."""
    return _ENTRY.sub(b"", log.removeprefix(LOG_HEAD))


def ids_in(log: bytes) -> list[str]:
    """The jobs with an entry in a log, in its order."""
    return [match["id"].decode() for match in _ENTRY.finditer(log)]


def log_name(stem: str) -> str:
    """A name for a log that can stand in a file name and a marker."""
    plain = re.sub(r"[^\w.-]+", "-", stem.encode("ascii", "ignore").decode()).strip("-.")
    return plain or f"log-{hashlib.sha256(stem.encode(errors='replace')).hexdigest()[:8]}"


def _segment(note: bytes, key: str) -> tuple[int, int] | None:
    """Where an imported entry begins and ends in a note."""
    matches = list(_SEGMENT.finditer(note))
    for index, match in enumerate(matches):
        if match["key"].decode() == key:
            return match.end(), matches[index + 1].start() if index + 1 < len(matches) else len(note)
    return None
