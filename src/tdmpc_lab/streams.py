"""Standard streams that take any text. Standard library only.

A program that prints `−132.3 ± 32.4` to a terminal of another encoding than UTF-8 ends in an error, and a job of many
hours with it. Here no text is refused: what an encoding lacks is written as something that looks like it.
"""

from __future__ import annotations

import codecs
import io
import os
import sys
import unicodedata

_ERRORS = "tdmpc_lab.lookalike"
UTF8_STREAMS = {"PYTHONIOENCODING": "utf-8:backslashreplace"}
"""In the environment of a Python process, and of those that it starts: its streams are UTF-8 and refuse nothing."""

_LOOKALIKES = {
    **dict.fromkeys("−–—─·", "-"),
    **dict.fromkeys("├└│", "|"),
    "→": "->",
    "±": "+/-",
    "≤": "<=",
    "≥": ">=",
    "×": "x",
    "∞": "inf",
    "γ": "gamma",
    "ρ": "rho",
    "▶": ">",
    **dict(zip("▁▂▃▄▅▆▇█", "_.-:=+*#", strict=True)),
}  # fmt: skip


def take_any_text() -> None:
    """Have standard output and error of this process take any text, in the encoding that they have.

    Where that is not UTF-8, a terminal's locale or PYTHONIOENCODING says so, and it is believed. A stream that was
    closed by the shell (`>&-`) becomes one to nowhere. What is read from standard input never fails to decode.
    """
    codecs.register_error(_ERRORS, _lookalike)
    for name in ("stdin", "stdout", "stderr"):  # in this order: a new file gets the lowest number that is free
        stream, errors = getattr(sys, name), "surrogateescape" if name == "stdin" else _ERRORS
        if stream is None:
            setattr(sys, name, open(os.devnull, "r" if name == "stdin" else "w", encoding="utf-8"))  # noqa: PTH123, SIM115
        elif isinstance(stream, io.TextIOWrapper) and stream.errors != errors:
            stream.reconfigure(errors=errors)


def write_utf8() -> None:
    """Have standard output and error of this process be UTF-8 and take any text: they are a job's log files."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding="utf-8", errors="backslashreplace")


def fits(text: str, stream: object) -> bool:
    """Whether this stream's encoding has every character of the text."""
    try:
        text.encode(getattr(stream, "encoding", None) or "utf-8")
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def as_typed(word: str) -> str:
    """A word of the command line whose bytes the locale could not decode, read as the UTF-8 or Latin-1 that it is."""
    if word.isprintable() and not any("\ud800" <= char <= "\udfff" for char in word):
        return word
    try:
        raw = os.fsencode(word)
    except UnicodeEncodeError:
        return word
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw.decode("latin-1")


def _lookalike(error: UnicodeError) -> tuple[str | bytes, int]:
    """Handles one character that an encoding lacks. A byte that was no text when it was read goes out as it came."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    char, end = error.object[error.start], error.start + 1
    if "\udc80" <= char <= "\udcff":
        return bytes([ord(char) - 0xDC00]), end
    plain = _LOOKALIKES.get(char) or unicodedata.normalize("NFKD", char)
    ascii_only = plain.encode("ascii", errors="ignore").decode()
    return ascii_only or "?", end
