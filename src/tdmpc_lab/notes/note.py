"""A job's note: the block between two marker lines is the tool's, every other byte is a user's.

The block's last line may be a verdict (`--> bad: because …`), by the command of that name: it stays where the rest of
the block is written anew.

Also here: a user's words in a note: adding a line to them, and putting an edited copy in their place.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tdmpc_lab.errors import NoteError
from tdmpc_lab.files import file_lock, write_atomic
from tdmpc_lab.sharing import reason

BEGIN = "<!-- tdmpc-lab:begin | this block is rewritten by tdmpc-lab; write your own words below its end -->"
"""The first line of the tool's block. Only `<!-- tdmpc-lab:begin … -->` is looked for, at a line's start."""
END = "<!-- tdmpc-lab:end -->"
"""Ends the tool's block, at a line's start; what follows it, on that line too, is a user's."""

_MARKER = re.compile(rb"^<!-- tdmpc-lab:(begin|end)\b[^\n]*", re.MULTILINE)
_BEGIN_LINE = re.compile(rb"<!-- tdmpc-lab:begin\b(?:(?!-->)[^\n])*-->[ \t]*(\r?)")
_BOM = b"\xef\xbb\xbf"  # some editors put it at the beginning of a file


@dataclass(frozen=True)
class NoteParts:
    """A note taken apart: `before + block + after` is the whole of it."""

    before: bytes
    """A user's, above the block: mostly empty."""
    block: bytes
    """The tool's, with its two markers; ends with the end marker, without a line end. Empty in a note without."""
    after: bytes
    """A user's, from the end marker on."""

    @property
    def line_end(self) -> bytes:
        """How the lines of the block end."""
        return b"\r\n" if self.block.partition(b"\n")[0].endswith(b"\r") else b"\n"

    @property
    def inner(self) -> list[bytes]:
        """The lines between the markers, without their ends."""
        return [line.removesuffix(b"\r") for line in self.block.split(b"\n")[1:-1]]

    @property
    def verdict(self) -> bytes:
        """The block's last line where it is a verdict, else nothing."""
        last = self.inner[-1] if self.inner else b""
        return last if last.startswith(b"-->") else b""

    def join(self) -> bytes:
        """The whole note."""
        return self.before + self.block + self.after


def update_note(path: Path, machine_part: str, lock: Path) -> bytes:
    """Put `machine_part` between the markers of the note and leave everything else as it is, byte for byte.

    A missing (or empty) file is made, with its folders. Line ends inside the block follow its first line. Returns
    the whole note.
    `lock` is held from reading to writing, so that tools updating at once lose nothing.
    Raises NoteError, and changes nothing, where the markers are missing, doubled, out of order or broken,
    and where the file can't be read or written.
    """
    return change_note(path, lambda old: replace_machine_part(old, machine_part, str(path)), lock)


def change_note(path: Path, change: Callable[[bytes], bytes], lock: Path) -> bytes:
    """Put `change(note)` in the note's place, with the lock held from reading to writing; returns it.

    A missing file counts as an empty one. Raises what `change` raises, and NoteError where the file can't be read or
    written; it is as it was then.
    """
    try:
        with file_lock(lock):
            try:
                old = path.read_bytes()
            except FileNotFoundError:
                path.parent.mkdir(parents=True, exist_ok=True)
                old = b""
            new = change(old)
            if new != old:  # an open editor should not be told of a change that is none
                write_atomic(path, new)
            return new
    except OSError as error:
        raise NoteError(f"{path}: the note can't be updated: {reason(error)}") from error


def replace_machine_part(note: bytes, machine_part: str, name: str = "the note") -> bytes:
    """The note with the text between its markers replaced, but for a verdict at its end; an empty one gets markers,
    text, a blank line.

    Raises NoteError where the markers are not exactly one begin line and, below it, one end line.
    """
    if not note:
        return _block(machine_part, b"\n") + b"\n\n"
    parts = take_apart(note, name)
    block = _block(machine_part, parts.line_end, parts.verdict)
    return parts.before + block + parts.after


def has_markers(note: bytes) -> bool:
    """Whether a line of the note is a marker of the tool's block, or looks like a broken one."""
    return _MARKER.search(note.removeprefix(_BOM)) is not None


def is_untouched(note: bytes) -> bool:
    """Whether a note holds nothing but the tool's block, without a verdict: no word of a user."""
    try:
        parts = take_apart(note)
    except NoteError:
        return False
    return not (parts.before.strip() or parts.after.strip() or parts.verdict)


def put_verdict(note: bytes, line: str, name: str = "the note") -> bytes:
    """The note with this `-->` line at the end of the tool's block, in the place of the one that stood there.

    A note without any marker, such as one from a hand-written log, gets a block that holds nothing else, at its top.
    Raises NoteError as `replace_machine_part`.
    """
    verdict = line.encode(errors="surrogateescape")
    if not has_markers(note):
        head = len(_BOM) if note.startswith(_BOM) else 0
        end = b"\r\n" if note.partition(b"\n")[0].endswith(b"\r") else b"\n"
        return note[:head] + end.join([BEGIN.encode(), verdict, END.encode()]) + end + note[head:]
    parts = take_apart(note, name)
    lines = parts.block.split(b"\n")
    del lines[-2 if parts.verdict else -1 :]
    said = [line + parts.line_end[:-1] for line in _below_text(verdict, lines[-1].rstrip(b"\r"))]
    return parts.before + b"\n".join([*lines, *said, END.encode()]) + parts.after


def take_apart(note: bytes, name: str = "the note") -> NoteParts:
    """The tool's block and what is around it.

    Raises NoteError where the markers are not exactly one begin line and, below it, one end line.
    """
    head = len(_BOM) if note.startswith(_BOM) else 0
    body = note[head:]
    markers = list(_MARKER.finditer(body))
    problem = _problem(body, markers)
    if problem:
        raise NoteError(
            f"{name}: {problem}; nothing was written. What the tool owns must stand between one line "
            f"'{BEGIN}' and one line '{END}': mend them, or move the file away to have it made anew."
        )
    begin, end = markers[0].start(), markers[1].start() + len(END.encode())
    return NoteParts(note[: head + begin], body[begin:end], body[end:])


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


def _block(machine_part: str, line_end: bytes, verdict: bytes = b"") -> bytes:
    """Markers and text, without a line end after the last one. No line of the text can pass for a marker, and its
    last one not for a verdict."""
    text = machine_part.replace("\r\n", "\n").replace("\r", "\n").strip("\n")
    text = text.replace("<!-- tdmpc-lab:", "<! -- tdmpc-lab:")
    # A lone surrogate has no UTF-8 form; it becomes a question mark rather than an error.
    lines = f"{BEGIN}\n{text}".encode(errors="replace").split(b"\n")
    if lines[-1].startswith(b"-->"):
        lines[-1] = b" " + lines[-1]
    return line_end.join([*lines, *(_below_text(verdict, lines[-1]) if verdict else []), END.encode()])


def _below_text(verdict: bytes, last: bytes) -> list[bytes]:
    """The lines that put a verdict below the block's last line: below a table, it would pass for a row of it."""
    close = not last or last.startswith((b"- ", b"<!-- tdmpc-lab:begin"))
    return [verdict] if close else [b"", verdict]


def add_bullet(note: bytes, text: str, name: str = "the note") -> bytes:
    """The note with `- text` below a user's last line; every byte of the note stays.

    Further lines of the text are indented, so that they stay one item of the list and none of them can pass for a
    heading or a marker. Bytes that are no UTF-8, as a shell may hand them over, arrive as they were typed.
    Raises NoteError where the note's markers are broken, or the text is empty.
    """
    lines = text.replace("\r\n", "\n").replace("\r", "\n").strip().split("\n")
    if not any(lines):
        raise NoteError("there are no words to add")
    end = b"\r\n" if b"\r\n" in note else b"\n"
    new = end.join(_encoded(line if index == 0 else f"  {line}".rstrip()) for index, line in enumerate(lines))
    return _below(note, b"- " + new, end, name)


def add_line(note: bytes, line: str, name: str = "the note") -> bytes:
    """The note with one more line below a user's last one, as it is: a `-->` of their own.

    Raises NoteError where the note's markers are broken.
    """
    return _below(note, _encoded(line), b"\r\n" if b"\r\n" in note else b"\n", name)


def _below(note: bytes, new: bytes, end: bytes, name: str) -> bytes:
    """The note with new lines below a user's last one, above the empty lines at its end."""
    above, below = b"", note
    if has_markers(note):
        parts = take_apart(note, name)
        above, below = parts.before + parts.block, parts.after
    body = below.rstrip()
    rest = below[len(body) :]
    if not body:  # a user's first words: below the empty line that follows the block
        gap = b"" if not above or below.count(b"\n") > 1 else end * (2 - below.count(b"\n"))
        return above + below + gap + new + end
    first_end = rest.find(b"\n") + 1
    if not first_end:  # the last line has no end yet
        return above + body + rest + end + new + end
    return above + body + rest[:first_end] + new + end + rest[first_end:]


def merge_edited(base: bytes, edited: bytes, current: bytes, name: str = "the note") -> bytes:
    """The note after a user edited a copy of it: their text around the tool's block of now.

    `base` is the note as the copy was made, `current` what it has become meanwhile. Lines added below the words in
    between, such as those of the command `note`, are kept below the edited ones.
    Raises NoteError where the edited copy's markers are broken, where something inside the block was edited, or the
    words have changed in two places.
    """
    if current == base:
        if has_markers(base) and take_apart(edited, name).block != take_apart(base, name).block:
            raise NoteError(_INSIDE)
        return edited
    if not has_markers(base):
        if not current.startswith(base):
            raise NoteError(_TWICE)
        return _joined(edited, current[len(base) :])
    old, mine, now = take_apart(base, name), take_apart(edited, name), take_apart(current, name)
    if mine.block != old.block:
        raise NoteError(_INSIDE)
    if now.before != old.before or not now.after.startswith(old.after):
        raise NoteError(_TWICE)
    return mine.before + now.block + _joined(mine.after, now.after[len(old.after) :])


_INSIDE = "something inside the tool's block was edited, which is written anew at every update; write below its end"
_TWICE = "the note's words were changed by somebody else meanwhile"


def _joined(words: bytes, more: bytes) -> bytes:
    gap = b"\n" if more and words and not (words.endswith(b"\n") or more.startswith(b"\n")) else b""
    return words + gap + more


def _encoded(line: str) -> bytes:
    """UTF-8; what is none of it (a name typed in another encoding) as the bytes it came from."""
    try:
        return line.encode(errors="surrogateescape")
    except UnicodeEncodeError:  # a lone surrogate that stands for no byte
        return line.encode(errors="replace")
