"""A job's note: the block between two marker lines is the tool's, every other byte is a person's."""

from __future__ import annotations

import re
from pathlib import Path

from tdmpc_lab.errors import NoteError
from tdmpc_lab.files import file_lock, write_atomic

BEGIN = "<!-- tdmpc-lab:begin | this block is rewritten by tdmpc-lab; write your own words below its end -->"
"""The first line of the tool's block. Only `<!-- tdmpc-lab:begin … -->` is looked for, at a line's start."""
END = "<!-- tdmpc-lab:end -->"
"""Ends the tool's block, at a line's start; what follows it, on that line too, is a person's."""

_MARKER = re.compile(rb"^<!-- tdmpc-lab:(begin|end)\b[^\n]*", re.MULTILINE)
_BEGIN_LINE = re.compile(rb"<!-- tdmpc-lab:begin\b(?:(?!-->)[^\n])*-->[ \t]*(\r?)")
_BOM = b"\xef\xbb\xbf"  # some editors put it at the beginning of a file


def update_note(path: Path, machine_part: str, lock: Path) -> None:
    """Put `machine_part` between the markers of the note and leave everything else as it is, byte for byte.

    A missing (or empty) file is made, with its folders. Line ends inside the block follow its first line.
    `lock` is held from reading to writing, so that tools updating at once lose nothing.
    Raises NoteError, and changes nothing, where the markers are missing, doubled, out of order or broken,
    and where the file can't be read or written.
    """
    try:
        with file_lock(lock):
            try:
                old = path.read_bytes()
            except FileNotFoundError:
                path.parent.mkdir(parents=True, exist_ok=True)
                old = b""
            new = replace_machine_part(old, machine_part, str(path))
            if new != old:  # an open editor should not be told of a change that is none
                write_atomic(path, new)
    except OSError as error:
        raise NoteError(f"{path}: the note can't be updated: {error}") from error


def replace_machine_part(note: bytes, machine_part: str, name: str = "the note") -> bytes:
    """The note with the text between its markers replaced; an empty one gets markers, text, a blank line.

    Raises NoteError where the markers are not exactly one begin line and, below it, one end line.
    """
    if not note:
        return _block(machine_part, b"\n") + b"\n\n"
    head = len(_BOM) if note.startswith(_BOM) else 0
    body = note[head:]
    markers = list(_MARKER.finditer(body))
    problem = _problem(body, markers)
    if problem:
        raise NoteError(
            f"{name}: {problem}; nothing was written. What the tool owns must stand between one line "
            f"'{BEGIN}' and one line '{END}': mend them, or move the file away to have it made anew."
        )
    begin, end = markers
    line = _BEGIN_LINE.fullmatch(begin[0])
    assert line is not None  # checked by _problem
    block = _block(machine_part, line[1] + b"\n")
    return note[: head + begin.start()] + block + body[end.start() + len(END.encode()) :]


def _problem(body: bytes, markers: list[re.Match[bytes]]) -> str | None:
    """What is wrong with the markers, in words, or None."""
    begins = [marker for marker in markers if marker[1] == b"begin"]
    ends = [marker for marker in markers if marker[1] == b"end"]
    for name, found in (("begin", begins), ("end", ends)):
        if not found:
            return f"the {name} marker is missing"
        if len(found) > 1:
            lines = " and ".join(str(_line_number(body, marker)) for marker in found)
            return f"the {name} marker stands more than once, on lines {lines}"
    begin, end = begins[0], ends[0]
    if end.start() < begin.start():
        return f"the end marker (line {_line_number(body, end)}) stands above the begin marker"
    if not _BEGIN_LINE.fullmatch(begin[0]):
        return f"line {_line_number(body, begin)} is broken: the begin marker must stand alone on its line"
    if not end[0].startswith(END.encode()):
        return f"line {_line_number(body, end)} is broken: the end marker must be whole"
    return None


def _line_number(body: bytes, marker: re.Match[bytes]) -> int:
    return body.count(b"\n", 0, marker.start()) + 1


def _block(machine_part: str, line_end: bytes) -> bytes:
    """Markers and text, without a line end after the last one. No line of the text can pass for a marker."""
    text = machine_part.replace("\r\n", "\n").replace("\r", "\n").strip("\n")
    text = text.replace("<!-- tdmpc-lab:", "<! -- tdmpc-lab:")
    # A lone surrogate has no UTF-8 form; it becomes a question mark rather than an error.
    lines = f"{BEGIN}\n{text}\n{END}".encode(errors="replace").split(b"\n")
    return line_end.join(lines)
