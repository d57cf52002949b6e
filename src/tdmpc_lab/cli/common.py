"""What the commands share: the project and the job that is meant, options, questions, JSON on standard output."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from argparse import ArgumentParser, ArgumentTypeError
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, TextIO

from tdmpc_lab.errors import UsageError
from tdmpc_lab.jobs.find import job_ids
from tdmpc_lab.sharing import share_new_files
from tdmpc_lab.streams import fits

if TYPE_CHECKING:
    from tdmpc_lab.jobs.paths import Project


OK, FAILED = 0, 1
SHOWN = 8  # lines of a list within a question or an error


def project_here() -> Project:
    """The project around the working directory; in a shared one this process makes its files for the group.

    Raises UsageError when there is none.
    """
    from tdmpc_lab.jobs.paths import find_project

    project = find_project()
    share_new_files(project.root)
    return project


def find_job_id(project: Project, text: str) -> str:
    """The id that was typed; `last` is the newest job. Raises UsageError for `last` without any job."""
    if text != "last":
        return text
    ids = job_ids(project)
    if not ids:
        raise UsageError("there are no jobs yet")
    return ids[-1]


def add_json(p: ArgumentParser, default: object = False) -> None:
    """Add `--json`. Of a command within a command: `default` argparse.SUPPRESS, or it undoes what came before."""
    p.add_argument(
        "--json", action="store_true", default=default, help="one JSON document on standard output, nothing else there"
    )


def positive(text: str) -> int:
    """A whole number of at least 1, for argparse."""
    value = int(text)
    if value < 1:
        raise ArgumentTypeError(f"{text} is not at least 1")
    return value


def count_from_zero(text: str) -> int:
    """A whole number of at least 0, for argparse."""
    value = int(text)
    if value < 0:
        raise ArgumentTypeError(f"{text} is below 0")
    return value


def add_profile(p: ArgumentParser) -> None:
    """Add `--profile`."""
    p.add_argument("--profile", metavar="NAME", help="profile of clusters.yaml: the same as slurm.profile=NAME")


def add_spec_and_sizes(p: ArgumentParser, *, optional: bool = False) -> None:
    """Add a spec, overrides of it, sizes instead of its environment, and `--json`."""
    if optional:
        p.add_argument("spec", metavar="SPEC", nargs="?")
    else:
        p.add_argument("spec", metavar="SPEC")
    p.add_argument("overrides", nargs="*", metavar="key=value")
    p.add_argument("--obs-dim", type=int, metavar="N", help="observation size, instead of making the environment")
    p.add_argument("--action-dim", type=int, metavar="M", help="action size, instead of making the environment")
    add_json(p)


def yes(question: str) -> bool:
    """Ask at the terminal; anything but y or yes is no."""
    print(f"{question} [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def shortened(lines: Sequence[str]) -> list[str]:
    """The first lines, and how many more there are."""
    return [*lines[:SHOWN], *([f"and {len(lines) - SHOWN:,} more"] if len(lines) > SHOWN else [])]


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
