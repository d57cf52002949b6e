"""Questions: what `submit` does about jobs that have run already, and `cancel` about many jobs at once."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Sequence
from typing import TYPE_CHECKING

from tdmpc_lab.errors import UsageError
from tdmpc_lab.text import count

if TYPE_CHECKING:
    from tdmpc_lab.app.submit.submit import Plan
    from tdmpc_lab.jobs.paths import Project

_SHOWN = 8
MANY = 10
"""Jobs that are cancelled at once without a question."""


def without_repeats(project: Project, plans: Sequence[Plan], args: Namespace) -> tuple[list[Plan], frozenset[str]]:
    """The plans that are to be submitted, and the jobs like them that are known of.

    Those that run or ran already are left out with `--skip-existing`, or where that is the answer at the terminal.
    Raises UsageError where the answer is no, or there is no terminal to ask at. A dry run only tells.
    """
    from tdmpc_lab.app.checks.repeats import find_repeats
    from tdmpc_lab.app.submit.code import code_now

    found = find_repeats(project, plans, lambda: code_now(project, "local", snapshot=not args.no_snapshot, write=False))
    for line in _shortened(found.said):
        print(f"note: {line}", file=sys.stderr)
    others = [plan for number, plan in enumerate(plans) if number not in found.plans]
    if not found.refused:
        return list(plans), found.seen
    told = "\n".join(f"  {line}" for line in _shortened(found.refused))
    head = "the same config and seed for a second time"
    if args.skip_existing:
        print(f"note: left out, {head}\n{told}", file=sys.stderr)
        return others, found.seen
    if args.dry_run:
        print(f"note: {head}; submit would ask\n{told}", file=sys.stderr)
        return list(plans), found.seen
    alone = f"the other {count(len(others), 'job')} alone"
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        skip = f"--skip-existing: {alone}; " if others else ""
        raise UsageError(f"{head}; nothing was done ({skip}--again: submit all the same)\n{told}")
    print(f"{head}\n{told}", file=sys.stderr)
    if yes("submit all the same?"):
        return list(plans), found.seen
    if others and yes(f"submit {alone}?"):
        return others, found.seen
    raise UsageError("nothing was done")


def refuse_many(ids: Sequence[str], agreed: bool) -> None:
    """Return if these jobs are to be cancelled: of more than ten at once a person is asked.

    Raises UsageError where the answer is no, or there is no terminal to ask at.
    """
    if agreed or len(ids) <= MANY:
        return
    told = "\n".join(f"  {line}" for line in _shortened(ids))
    head = f"that are {count(len(ids), 'job')}"
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise UsageError(f"{head}; nothing was done (--yes: cancel them all the same)\n{told}")
    print(f"{head}\n{told}", file=sys.stderr)
    if not yes("cancel them all?"):
        raise UsageError("nothing was done")


def yes(question: str) -> bool:
    """Ask at the terminal; anything but y or yes is no."""
    print(f"{question} [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _shortened(lines: Sequence[str]) -> list[str]:
    return [*lines[:_SHOWN], *([f"and {len(lines) - _SHOWN:,} more"] if len(lines) > _SHOWN else [])]
