"""`gc`: lists what nobody needs any more, and removes it when told to."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, ArgumentTypeError, Namespace, _SubParsersAction
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from tdmpc_lab.cli.common import add_json, find_job_id, project_here
from tdmpc_lab.cli.output import print_json

if TYPE_CHECKING:
    from tdmpc_lab.app.queue.gc import Findings, Leftover
    from tdmpc_lab.jobs.paths import Project

OK, FAILED = 0, 1
_SHOWN = 20  # of one kind; --json has all
_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


def add_gc(sub: _SubParsersAction[ArgumentParser]) -> None:
    """Add the command."""
    p = sub.add_parser(
        "gc",
        help="list what nobody needs any more (old checkpoints, code without jobs), and remove it when told to",
        description="List what nobody needs any more, with sizes: old checkpoints of jobs that are over, code that no "
        "job runs from, what killed processes and submits left. A terminal is asked whether to remove it; elsewhere "
        "nothing is removed without --yes. Records, metrics, notes, logs and videos stay, and all files of jobs that "
        "wait or run.",
    )
    p.add_argument("jobs", nargs="*", metavar="ID", help="only files of these jobs (default: everything)")
    p.add_argument("--yes", "--remove", action="store_true", help="remove it without asking")
    p.add_argument(
        "--keep", type=_at_least_one, default=1, metavar="N", help="newest checkpoints that stay of a job (default 1)"
    )
    p.add_argument(
        "--older-than", metavar="TIME", help="only of jobs that ended before: 30d, 12h ago, or a day, 2026-01-22"
    )
    add_json(p)
    p.set_defaults(run=gc, rest="jobs")


def _at_least_one(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise ArgumentTypeError(f"{text!r}: at least 1, a job's last checkpoint always stays")
    return int(text)


def gc(args: Namespace) -> int:
    """`gc [ID ...] [--yes]`; 1 when something could not be removed."""
    from tdmpc_lab.app.queue.gc import find_leftovers, remove
    from tdmpc_lab.cli.repeats import yes
    from tdmpc_lab.notes.log import parse_moment

    project = project_here()
    ids = [paths.id for paths in project.require_jobs([find_job_id(project, job) for job in args.jobs])] or None
    moment = None if args.older_than is None else parse_moment(args.older_than, datetime.now()).astimezone()
    found = find_leftovers(project, ids, older_than=moment, keep=args.keep)
    _show(project, found)
    wanted = bool(found.leftovers) and args.yes
    if found.leftovers and not args.yes:
        if sys.stdin.isatty() and sys.stderr.isatty() and not args.json:
            wanted = yes(f"remove {_count(found.leftovers)}, {size_text(found.size)}?")
        else:
            print("nothing was removed; to remove it: tdmpc-lab gc --yes", file=sys.stderr)
    removed: list[Leftover] = []
    problems: list[str] = []
    if wanted:
        # Looked at again: a job may have been submitted or resumed while the question stood.
        now = set(find_leftovers(project, ids, older_than=moment, keep=args.keep).leftovers)
        removed, problems = remove(project, [leftover for leftover in found.leftovers if leftover in now])
        print(f"removed {_count(removed)}, {size_text(sum(leftover.size for leftover in removed))}")
    for problem in problems:
        print(f"error: not removed: {problem}", file=sys.stderr)
    if args.json:
        print_json(
            {
                "bytes": found.size,
                "leftovers": [leftover.as_dict(project) for leftover in found.leftovers],
                "removed": [leftover.as_dict(project)["path"] for leftover in removed],
                "problems": problems,
                "left_alone": found.left_alone,
            }
        )
    return FAILED if problems else OK


def _show(project: Project, found: Findings) -> None:
    from tdmpc_lab.app.queue.gc import KINDS

    for kind, words in KINDS.items():
        of_kind = [leftover for leftover in found.leftovers if leftover.kind == kind]
        if not of_kind:
            continue
        print(f"{words}: {_count(of_kind)}, {size_text(sum(leftover.size for leftover in of_kind))}")
        for leftover in of_kind[:_SHOWN]:
            print(f"  {size_text(leftover.size):>9}  {leftover.path.relative_to(project.root)}")
        if len(of_kind) > _SHOWN:
            print(f"  and {len(of_kind) - _SHOWN:,} more; all: tdmpc-lab gc --json")
    for text in found.left_alone:
        print(f"left alone: {text}", file=sys.stderr)
    if not found.leftovers:
        print("there is nothing that nobody needs")


def _count(leftovers: Sequence[Leftover]) -> str:
    return f"{len(leftovers):,} thing{'' if len(leftovers) == 1 else 's'}"


def size_text(size: float) -> str:
    """Bytes for reading: `512 B`, `1.4 GiB`."""
    for unit in _UNITS[:-1]:
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} {_UNITS[-1]}"
