"""Standard output under `--json`: one document, whatever else a command or the user's environment prints."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Iterator
from typing import Any, TextIO

from tdmpc_lab.streams import fits

_for_documents: list[TextIO] = []

LONG_LIST = 100


@contextlib.contextmanager
def documents_only() -> Iterator[None]:
    """Within, everything that is printed goes to standard error, and only `print_json` to standard output."""
    _for_documents.append(sys.stdout)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        _for_documents.pop()


@contextlib.contextmanager
def outlives_its_reader() -> Iterator[None]:
    """Within, a reader of standard output that has gone (head, less) stops nothing: what is printed is lost."""
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        silence_stdout()


def silence_stdout() -> None:
    """Nobody reads standard output any more: send all that follows to nowhere."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.__stdout__.fileno() if sys.__stdout__ else 1)


def print_json(document: Any) -> None:
    """The document of a command, on standard output; with `\\u2212` for what its encoding lacks."""
    stream = _for_documents[-1] if _for_documents else sys.stdout
    if isinstance(document, list) and len(document) > LONG_LIST:  # to indent thousands of jobs takes long
        text = _one_a_line(document, ensure_ascii=False)
        print(text if fits(text, stream) else _one_a_line(document, ensure_ascii=True), file=stream)
    else:
        text = json.dumps(document, indent=2, ensure_ascii=False)
        print(text if fits(text, stream) else json.dumps(document, indent=2), file=stream)


def _one_a_line(documents: list[Any], *, ensure_ascii: bool) -> str:
    return "[\n" + ",\n".join(map(json.JSONEncoder(ensure_ascii=ensure_ascii).encode, documents)) + "\n]"
