"""Standard output under `--json`: one document, whatever else a command or the user's environment prints."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Iterator
from typing import Any, TextIO

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
    """The document of a command, on standard output."""
    stream = _for_documents[-1] if _for_documents else sys.stdout
    if isinstance(document, list) and len(document) > LONG_LIST:  # to indent thousands of jobs takes long
        lines = ",\n".join(map(json.JSONEncoder(ensure_ascii=False).encode, document))
        print(f"[\n{lines}\n]", file=stream)
    else:
        print(json.dumps(document, indent=2, ensure_ascii=False), file=stream)
