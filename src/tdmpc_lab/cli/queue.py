"""`status`, `show`, `logs`, `cancel`, `wait`, `gc`: jobs that wait, run or are over."""

from __future__ import annotations

import codecs
import sys
import time
from argparse import ArgumentParser, ArgumentTypeError, BooleanOptionalAction, Namespace
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from tdmpc_lab.app.joblog.log import catch_up_notes
from tdmpc_lab.app.mlflow.sync import not_sent
from tdmpc_lab.app.queue.cancel import cancel as stop
from tdmpc_lab.app.queue.cancel import chosen
from tdmpc_lab.app.queue.gc import KINDS, find_leftovers, remove
from tdmpc_lab.app.queue.logs import log_of, state_in_words
from tdmpc_lab.app.queue.show import array_commands, job_page, note_entry
from tdmpc_lab.app.queue.status import JobView, Selection, job_views, list_jobs, no_garbage, parse_states
from tdmpc_lab.app.queue.status import wait as follow_jobs
from tdmpc_lab.cli.common import (
    FAILED,
    OK,
    add_json,
    find_job_id,
    print_json,
    project_here,
    shortened,
    yes,
)
from tdmpc_lab.errors import ExternalError, RecordError, UsageError
from tdmpc_lab.jobs.find import is_recorded, require_job, require_jobs, tasks_of
from tdmpc_lab.jobs.ids import expand_tasks, is_job_id
from tdmpc_lab.jobs.state import State
from tdmpc_lab.jobs.unsent import unsent_jobs
from tdmpc_lab.notes.entries import parse_moment
from tdmpc_lab.notes.render import outcome_line
from tdmpc_lab.text import count, size_text
from tdmpc_lab.training.progress import make_progress

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tdmpc_lab.app.queue.gc import Findings, Leftover
    from tdmpc_lab.app.queue.status import Listing
    from tdmpc_lab.jobs.paths import JobPaths, Project


MOST_SHOWN = 100  # jobs in the table of all, beside those that wait or run
WATCH_S = 5.0
_LEAST_S, _MOST_S = 1.0, 3600.0
_pause = time.sleep
_BUSY = 4.0  # a look that takes long is repeated less often: at most a fifth of the time is spent on it


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
        _print_queue(project, listing, args, in_full=wanted.ids is not None)
        catch_up_notes(project, listing.looked_at)
        if not args.json and not args.md:
            _say_what_is_not_sent(project)
    return _answer_of(listing)


def _say_what_is_not_sent(project: Project) -> None:
    if not unsent_jobs(project):  # nearly always: the marks are gone as soon as MLflow has everything
        return

    if jobs := not_sent(project):
        are = "job is" if len(jobs) == 1 else "jobs are"
        print(f"note: {len(jobs):,} {are} not (all) in MLflow yet: tdmpc-lab sync", file=sys.stderr)


def _print_queue(project: Project, listing: Listing, args: Namespace, *, in_full: bool) -> None:
    if args.json:
        print_json([view.as_dict() for view in (*listing.views, *listing.foreign)])
    elif args.md:
        _print_markdown(listing)
    else:
        from tdmpc_lab.cli.tables import print_listing

        if not listing.views:
            print(_nothing(project, listing))
        print_listing(listing, in_full=in_full)


def _selection(project: Project, args: Namespace) -> Selection:
    ids = [paths.id for paths in require_jobs(project, [find_job_id(project, job) for job in args.jobs])] or None
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
    return parse_moment(text, datetime.now()).astimezone()


def _nothing(project: Project, listing: Listing) -> str:
    if listing.known:
        return f"no job is like that; the project has {listing.known:,}"
    specs = sorted(project.experiments.glob("*.yaml"), key=lambda path: (path.stem != "quickstart", path.name))
    if not specs:
        return "no jobs yet; write a spec, then: tdmpc-lab submit experiments/NAME.yaml"
    return f"no jobs yet; start one with: tdmpc-lab submit experiments/{specs[0].name}"


def _answer_of(listing: Listing) -> int:
    if listing.slurm_answered:
        return OK
    print("error: SLURM could not be asked; what is shown of its jobs is what was last known", file=sys.stderr)
    return ExternalError.exit_code


def _print_markdown(listing: Listing) -> None:
    from tdmpc_lab.cli.tables import queue_markdown

    print(f"{datetime.now():%Y-%m-%d_%H-%M-%S}\n")
    print(queue_markdown([*listing.views, *listing.foreign]))
    if listing.left_out:
        older = count(listing.left_out, "older job is", "older jobs are")
        print(f"\n{older} over and not shown; all: tdmpc-lab status --md --all")


def _watch(project: Project, wanted: Selection, most: int | None, every_s: float) -> int:
    """Show the jobs again and again until Ctrl-C, which is no error: nothing but the looking ends."""
    from tdmpc_lab.app.queue.status import ASK_S, Asked, list_jobs
    from tdmpc_lab.cli.tables import Screen

    asked = Asked(max(ASK_S, every_s))
    with Screen() as screen:
        try:
            while True:
                began = time.monotonic()
                listing = list_jobs(project, wanted, most, asked)
                screen.show(listing, _nothing(project, listing) if not listing.views else "")
                catch_up_notes(project, listing.looked_at)
                _pause(max(every_s, _BUSY * (time.monotonic() - began)))
        except KeyboardInterrupt:
            return OK


def add_status(p: ArgumentParser) -> None:
    """The words of `status`."""
    p.description = (
        "What the jobs are doing: those that wait or run as squeue shows them, with what they are and how "
        "they are doing, and your other jobs in the queue; and those that are over. "
        "Times are written 2026-01-22, '2026-01-22 22:05', or 7d, 12h for so long ago."
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
    p.set_defaults(run=status, rest="jobs")


def show(args: Namespace) -> int:
    """`show ID`; 1 when the job's record can't be read, 3 when SLURM could not be asked about it."""
    from tdmpc_lab.cli.pages import print_entry, print_page

    project = project_here()
    wanted = find_job_id(project, args.job)
    tasks = tasks_of(project, wanted) if is_job_id(wanted) else expand_tasks(wanted)
    if len(tasks) > 1 or (tasks and tasks != [wanted]):
        return _show_tasks(project, wanted, [paths.id for paths in require_jobs(project, tasks)], as_json=args.json)
    if is_job_id(wanted) and not is_recorded(project, wanted) and (entry := note_entry(project, wanted)):
        if args.json:
            print_json({"note": str(project.note(wanted)), **entry.as_dict()})
        else:
            print_entry(entry)
        return OK
    page = job_page(project, require_job(project, wanted).id)
    catch_up_notes(project, [page if isinstance(page, JobView) else page.view])
    if isinstance(page, JobView):
        raise RecordError(f"job {page.id} can't be read: {page.problem}")
    if args.json:
        print_json(page.as_dict(project))
    else:
        print_page(project, page)
    return _answer(page.view.slurm_answered)


def _show_tasks(project: Project, array: str, ids: list[str], *, as_json: bool) -> int:
    from tdmpc_lab.cli.pages import print_array

    views = job_views(project, ids)
    catch_up_notes(project, views)
    array_id = array.partition("_")[0]
    if as_json:
        entry = note_entry(project, array_id)
        verdict = None if entry is None or entry.verdict is None else entry.verdict.as_dict()
        commands = [command for command, _ in array_commands(array, views)]
        tasks = [view.as_dict() for view in views]
        note = str(project.note(array_id))
        print_json({"array": array_id, "tasks": tasks, "note": note, "verdict": verdict, "commands": commands})
    else:
        print_array(project, array, views)
    return _answer(all(view.slurm_answered for view in views))


def _answer(slurm_answered: bool) -> int:
    if slurm_answered:
        return OK
    print("error: SLURM could not be asked; what is shown is what was last known", file=sys.stderr)
    return ExternalError.exit_code


def add_show(p: ArgumentParser) -> None:
    """The words of `show`."""
    p.description = (
        "Everything about one job on a page: what it is and why, what differs, state and cause, attempts, "
        "results, checkpoints, videos, what its note says, and the commands to continue with. Of an array, a line per "
        "task."
    )
    p.add_argument("job", metavar="ID", help="a job id, `last`, or the id of an array")
    add_json(p)
    p.set_defaults(run=show)


LINES = 40
_NAMED = 5


def logs(args: Namespace) -> int:
    """`logs ID [-f] [-n N] [--err]`; 3 when SLURM could not be asked about a job that has printed nothing."""
    from tdmpc_lab.app.queue.logs import Tail, follow, log_of

    if args.lines < 0:
        raise UsageError(f"--lines {args.lines} is below 0: give the number of last lines to print, 0 for none")
    project = project_here()
    paths = _one_task(require_jobs(project, [find_job_id(project, args.job)]), args.job)
    tail = Tail(log_of(paths, errors=args.err))
    try:
        shown = tail.last(args.lines)
        write = _writer()
        write(shown)
        if args.follow:
            view = follow(project, paths.id, tail, write, _to_stderr)
        elif shown or args.lines == 0:
            return OK
        else:
            (view,) = job_views(project, [paths.id])
    except KeyboardInterrupt:
        _to_stderr(f"\nthe job continues; follow it again with: tdmpc-lab logs -f {paths.id}")
        raise
    finally:
        tail.close()
    catch_up_notes(project, [view])
    return _end_of_log(view, paths, errors=args.err)


def _one_task(found: list[JobPaths], text: str) -> JobPaths:
    if len(found) > 1:
        ids = ", ".join(paths.id for paths in found[:_NAMED]) + (", …" if len(found) > _NAMED else "")
        raise UsageError(f"{text} has {len(found)} tasks, each with its own log: name one of {ids}")
    return found[0]


def _end_of_log(view: JobView, paths: JobPaths, *, errors: bool) -> int:
    """Say how the job stands, and where to look when this log holds nothing."""
    _to_stderr(state_in_words(view))
    if not _filled(log_of(paths, errors=errors)):
        other = log_of(paths, errors=not errors)
        option = "" if errors else " --err"
        here = f"{log_of(paths, errors=errors).name} is empty or not there"
        _to_stderr(f"{here}; {other.name} is not: tdmpc-lab logs {paths.id}{option}" if _filled(other) else here)
        if not view.slurm_answered:
            _to_stderr("error: SLURM could not be asked about this job")
            return ExternalError.exit_code
    return OK


def _filled(path: Path) -> bool:
    return path.exists() and path.stat().st_size > 0


def _writer() -> Callable[[bytes], None]:
    """Puts a log's bytes out as they are; where the terminal is not of UTF-8, as log files are, in its encoding."""
    if codecs.lookup(sys.stdout.encoding).name == "utf-8":

        def write(data: bytes) -> None:
            sys.stdout.buffer.write(data)
            sys.stdout.buffer.flush()

        return write
    decoder = codecs.getincrementaldecoder("utf-8")(errors="surrogateescape")
    return lambda data: print(decoder.decode(data), end="", flush=True)


def _to_stderr(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def add_logs(p: ArgumentParser) -> None:
    """The words of `logs`."""
    p.description = (
        "Print the end of what a job's process printed. With -f, follow it to the job's end; Ctrl-C stops "
        "the looking, never the job."
    )
    p.add_argument("job", metavar="ID", help="a job id, or `last`; of an array, one task: 7_3")
    p.add_argument("-f", "--follow", action="store_true", help="print what comes, until the job ends")
    p.add_argument("-n", "--lines", type=int, default=LINES, metavar="N", help=f"last lines (default {LINES})")
    p.add_argument("--err", action="store_true", help="standard error instead of standard output")
    p.set_defaults(run=logs)


MANY = 10
"""Jobs that are cancelled at once without a question."""


def cancel(args: Namespace) -> int:
    """`cancel ID... [--experiment NAME] [--save] [--yes]`."""
    if not args.jobs and args.experiment is None:
        raise UsageError("name the jobs to cancel, or give --experiment NAME")
    project = project_here()
    ids = chosen(project, [find_job_id(project, job) for job in args.jobs], args.experiment)
    refuse_many(ids, args.yes)
    done = stop(project, ids, save=args.save, tell=lambda text: print(text, file=sys.stderr, flush=True))
    if args.json:
        print_json(done)
        return OK
    for job_id, what in done.items():
        print(f"{job_id}: {what}")
    if not done:
        print(f"no job of {args.experiment} waits or runs; nothing was done")
    return OK


def wait(args: Namespace) -> int:
    """`wait ID...`."""
    project = project_here()
    ids = [paths.id for paths in require_jobs(project, [find_job_id(project, job) for job in args.jobs])]
    steps = {v.id: v.status.steps if v.status else 0 for v in job_views(project, ids)}
    code = follow(project, steps, args.json)
    if args.json:
        print_json([view.as_dict() for view in job_views(project, ids)])
    return code


def follow(project: Project, steps: dict[str, int], as_json: bool) -> int:
    """Follow the jobs to their end; 0 if all completed."""
    progress = make_progress(steps)
    try:
        views = follow_jobs(project, list(steps), progress)
    except KeyboardInterrupt:
        progress.close()
        print(f"\nthe job continues; follow it with: tdmpc-lab wait {' '.join(steps)}", file=sys.stderr)
        raise
    progress.close()
    for view in views:
        say(_outcome(view), as_json)
    catch_up_notes(project, views)
    return OK if all_completed(project, list(steps)) else FAILED


def all_completed(project: Project, ids: Sequence[str]) -> bool:
    views = job_views(project, ids)
    return all(v.status is not None and v.status.state is State.COMPLETED for v in views)


def _outcome(view: JobView) -> str:
    if view.status is None:
        return f"{view.id}: UNKNOWN: {view.problem}"

    return f"{view.id}: {outcome_line(view.status)}"


def say(text: str, as_json: bool) -> None:
    print(text, file=sys.stderr if as_json else sys.stdout, flush=True)


def add_cancel(p: ArgumentParser) -> None:
    """The words of `cancel`."""
    p.add_argument("jobs", nargs="*", metavar="ID", help="job ids, or `last`; the id of an array for all its tasks")
    p.add_argument("--experiment", metavar="NAME", help="every job of this experiment that waits or runs")
    p.add_argument("--save", action="store_true", help="SLURM jobs that run save a checkpoint first; waits up to 60 s")
    p.add_argument(
        "--yes", action="store_true", help="do not ask, however many jobs there are (more than ten: it asks)"
    )
    add_json(p)
    p.set_defaults(run=cancel, rest="jobs")


def add_wait(p: ArgumentParser) -> None:
    """The words of `wait`."""
    p.add_argument("jobs", nargs="+", metavar="ID", help="job ids, or `last`")
    add_json(p)
    p.set_defaults(run=wait, rest="jobs")


def refuse_many(ids: Sequence[str], agreed: bool) -> None:
    """Return if these jobs are to be cancelled: of more than ten at once a user is asked.

    Raises UsageError where the answer is no, or there is no terminal to ask at.
    """
    if agreed or len(ids) <= MANY:
        return
    told = "\n".join(f"  {line}" for line in shortened(ids))
    head = f"that are {count(len(ids), 'job')}"
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise UsageError(f"{head}; nothing was done (--yes: cancel them all the same)\n{told}")
    print(f"{head}\n{told}", file=sys.stderr)
    if not yes("cancel them all?"):
        raise UsageError("nothing was done")


_SHOWN = 20  # of one kind; --json has all


def _at_least_one(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise ArgumentTypeError(f"{text!r}: at least 1, a job's last checkpoint always stays")
    return int(text)


def gc(args: Namespace) -> int:
    """`gc [ID ...] [--yes]`; 1 when something could not be removed."""
    project = project_here()
    ids = [paths.id for paths in require_jobs(project, [find_job_id(project, job) for job in args.jobs])] or None
    moment = None if args.older_than is None else parse_moment(args.older_than, datetime.now()).astimezone()
    found = find_leftovers(project, ids, older_than=moment, keep=args.keep)
    _show_leftovers(project, found)
    wanted = bool(found.leftovers) and args.yes
    if found.leftovers and not args.yes:
        if sys.stdin.isatty() and sys.stderr.isatty() and not args.json:
            wanted = yes(f"remove {_files(found.leftovers)}, {size_text(found.size)}?")
        else:
            print("nothing was removed; to remove it: tdmpc-lab gc --yes", file=sys.stderr)
    removed: list[Leftover] = []
    problems: list[str] = []
    if wanted:
        # Looked at again: a job may have been submitted or resumed while the question stood.
        now = set(find_leftovers(project, ids, older_than=moment, keep=args.keep).leftovers)
        removed, problems = remove(project, [leftover for leftover in found.leftovers if leftover in now])
        print(f"removed {_files(removed)}, {size_text(sum(leftover.size for leftover in removed))}")
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


def _show_leftovers(project: Project, found: Findings) -> None:
    for kind, words in KINDS.items():
        of_kind = [leftover for leftover in found.leftovers if leftover.kind == kind]
        if not of_kind:
            continue
        print(f"{words}: {_files(of_kind)}, {size_text(sum(leftover.size for leftover in of_kind))}")
        for leftover in of_kind[:_SHOWN]:
            print(f"  {size_text(leftover.size):>9}  {leftover.path.relative_to(project.root)}")
        if len(of_kind) > _SHOWN:
            print(f"  and {len(of_kind) - _SHOWN:,} more; all: tdmpc-lab gc --json")
    for text in found.left_alone:
        print(f"left alone: {text}", file=sys.stderr)
    if not found.leftovers:
        print("nothing to remove")


def _files(leftovers: Sequence[Leftover]) -> str:
    return f"{len(leftovers):,} thing{'' if len(leftovers) == 1 else 's'}"


def add_gc(p: ArgumentParser) -> None:
    """The words of `gc`."""
    p.description = (
        "List removable files, with sizes: old checkpoints of jobs that are over, code that no "
        "job runs from, what killed processes and submits left. A terminal is asked whether to remove it; elsewhere "
        "nothing is removed without --yes. Records, metrics, notes, logs and videos stay, and all files of jobs that "
        "wait or run."
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
