"""`status`: the annotated queue, once or again and again."""

from __future__ import annotations

import gc
import sys
import time
from argparse import ArgumentParser, ArgumentTypeError, BooleanOptionalAction, Namespace, _SubParsersAction
from datetime import datetime
from typing import TYPE_CHECKING

from tdmpc_lab.cli.common import add_json, find_job_id, project_here
from tdmpc_lab.cli.output import print_json
from tdmpc_lab.cli.syncing import with_sync
from tdmpc_lab.errors import ExternalError, UsageError
from tdmpc_lab.text import count

if TYPE_CHECKING:
    from tdmpc_lab.app.queue.status import Listing, Selection
    from tdmpc_lab.jobs.paths import Project

OK = 0
MOST_SHOWN = 100  # jobs in the table of all, beside those that wait or run
WATCH_S = 5.0
_LEAST_S, _MOST_S = 1.0, 3600.0
_MANY = 1000  # jobs
_pause = time.sleep
_BUSY = 4.0  # a look that takes long is repeated less often: at most a fifth of the time is spent on it


def add_status(sub: _SubParsersAction[ArgumentParser]) -> None:
    """Add the command."""
    p = sub.add_parser(
        "status",
        help="the queue with what every job is, its step, result, speed and time; and the jobs that are over",
        description="What the jobs are doing: those that wait or run as squeue shows them, with what they are and how "
        "they are doing, and your other jobs in the queue; and those that are over. "
        "Times are written 2026-01-22, '2026-01-22 22:05', or 7d, 12h for so long ago.",
    )
    p.add_argument("jobs", nargs="*", metavar="ID", help="only these jobs (default: all)")
    p.add_argument("--all", action="store_true", help="every job, also where there are hundreds")
    p.add_argument(
        "--state",
        metavar="STATE",
        help="only jobs in this state: running, failed, …; active, over; several with commas",
    )
    p.add_argument("--experiment", metavar="NAME", help="only jobs of this experiment")
    p.add_argument("--cluster", choices=["slurm", "local", "debug"], help="only jobs that were submitted there")
    p.add_argument("--partition", metavar="NAME", help="only jobs of this partition")
    p.add_argument("--since", metavar="TIME", help="only jobs submitted at this time or later")
    p.add_argument("--mine", action="store_true", help="only jobs that you submitted, of a project shared by several")
    p.add_argument(
        "--foreign",
        action=BooleanOptionalAction,
        default=None,
        help="your jobs in the queue that are not of this project (default: shown, but not with --json)",
    )
    p.add_argument(
        "--watch",
        nargs="?",
        type=_seconds,
        const=WATCH_S,
        metavar="SECONDS",
        help=f"look again every so many seconds (default {WATCH_S:.0f}) until Ctrl-C",
    )
    p.add_argument("--md", action="store_true", help="as Markdown, to paste into a note")
    add_json(p)
    p.set_defaults(run=with_sync(status), rest="jobs")


def _seconds(text: str) -> float:
    hint = f"the SECONDS of --watch are {_LEAST_S:.0f} to {_MOST_S:.0f}; job ids stand before --watch"
    try:
        value = float(text)
    except ValueError:
        raise ArgumentTypeError(f"{text!r}: {hint}") from None
    if not _LEAST_S <= value <= _MOST_S:
        raise ArgumentTypeError(f"{text}: {hint}")
    return value


def status(args: Namespace) -> int:
    """`status [ID ...]`; 3 when SLURM could not be asked about a job, which is then shown as last known."""
    from tdmpc_lab.app.joblog.catch_up import catch_up_notes
    from tdmpc_lab.app.queue.status import list_jobs, no_garbage

    if args.json and args.md:
        raise UsageError("--json and --md are two forms of one answer: give one of them")
    if args.watch is not None and (args.json or args.md):
        raise UsageError("--watch is for looking on; for --json and --md leave it out, and call again")
    project = project_here()
    wanted = _selection(project, args)
    most = None if args.json or args.all or wanted.ids is not None else MOST_SHOWN
    if args.watch is not None:
        return _watch(project, wanted, most, args.watch)
    with no_garbage():
        listing = list_jobs(project, wanted, most)
        _print(listing, args, in_full=wanted.ids is not None)
        catch_up_notes(project, listing.looked_at)
        if listing.known > _MANY:
            gc.freeze()  # nor does Python look for cycles among them when it ends
    return _answer(listing)


def _print(listing: Listing, args: Namespace, *, in_full: bool) -> None:
    if args.json:
        print_json([view.as_dict() for view in (*listing.views, *listing.foreign)])
    elif args.md:
        _print_markdown(listing)
    else:
        from tdmpc_lab.cli.tables import print_listing

        if not listing.views:
            print(_nothing(listing))
        print_listing(listing, in_full=in_full)


def _selection(project: Project, args: Namespace) -> Selection:
    from tdmpc_lab.app.queue.status import Selection, parse_states

    ids = [paths.id for paths in project.require_jobs([find_job_id(project, job) for job in args.jobs])] or None
    return Selection(
        ids=ids,
        states=None if args.state is None else parse_states(args.state),
        experiment=args.experiment,
        cluster=args.cluster,
        partition=args.partition,
        since=None if args.since is None else _moment(args.since),
        mine=args.mine,
        foreign=not args.json if args.foreign is None else args.foreign,
    )


def _moment(text: str) -> datetime:
    from tdmpc_lab.notes.log import parse_moment

    return parse_moment(text, datetime.now()).astimezone()


def _nothing(listing: Listing) -> str:
    if listing.known:
        return f"no job is like that; the project has {listing.known:,}"
    return "no jobs yet; start one with: tdmpc-lab submit experiments/quickstart.yaml"


def _answer(listing: Listing) -> int:
    if listing.slurm_answered:
        return OK
    print("error: SLURM could not be asked; what is shown of its jobs is what was last known", file=sys.stderr)
    return ExternalError.exit_code


def _print_markdown(listing: Listing) -> None:
    from tdmpc_lab.cli.queue_table import queue_markdown

    print(f"{datetime.now():%Y-%m-%d_%H-%M-%S}\n")
    print(queue_markdown([*listing.views, *listing.foreign]))
    if listing.left_out:
        older = count(listing.left_out, "older job is", "older jobs are")
        print(f"\n{older} over and not shown; all: tdmpc-lab status --md --all")


def _watch(project: Project, wanted: Selection, most: int | None, every_s: float) -> int:
    """Show the jobs again and again until Ctrl-C, which is no error: nothing but the looking ends."""
    from tdmpc_lab.app.joblog.catch_up import catch_up_notes
    from tdmpc_lab.app.queue.status import ASK_S, Asked, list_jobs
    from tdmpc_lab.cli.tables import Screen

    asked = Asked(max(ASK_S, every_s))
    with Screen() as screen:
        try:
            while True:
                began = time.monotonic()
                listing = list_jobs(project, wanted, most, asked)
                screen.show(listing, _nothing(listing) if not listing.views else "")
                catch_up_notes(project, listing.looked_at)
                _pause(max(every_s, _BUSY * (time.monotonic() - began)))
        except KeyboardInterrupt:
            return OK
