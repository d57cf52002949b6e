"""A person's words in a note: adding a line to them, and putting an edited copy in their place."""

from __future__ import annotations

from tdmpc_lab.errors import NoteError
from tdmpc_lab.notes.note import has_markers, take_apart


def add_bullet(note: bytes, text: str, name: str = "the note") -> bytes:
    """The note with `- text` below a person's last line; every byte of the note stays.

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
    """The note with one more line below a person's last one, as it is: a `-->` of his own.

    Raises NoteError where the note's markers are broken.
    """
    return _below(note, _encoded(line), b"\r\n" if b"\r\n" in note else b"\n", name)


def _below(note: bytes, new: bytes, end: bytes, name: str) -> bytes:
    """The note with new lines below a person's last one, above the empty lines at its end."""
    above, below = b"", note
    if has_markers(note):
        parts = take_apart(note, name)
        above, below = parts.before + parts.block, parts.after
    body = below.rstrip()
    rest = below[len(body) :]
    if not body:  # a person's first words: below the empty line that follows the block
        gap = b"" if not above or below.count(b"\n") > 1 else end * (2 - below.count(b"\n"))
        return above + below + gap + new + end
    first_end = rest.find(b"\n") + 1
    if not first_end:  # the last line has no end yet
        return above + body + rest + end + new + end
    return above + body + rest[:first_end] + new + end + rest[first_end:]


def merge_edited(base: bytes, edited: bytes, current: bytes, name: str = "the note") -> bytes:
    """The note after somebody edited a copy of it: his words around the tool's block of now.

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
