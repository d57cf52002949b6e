"""`logs`: what a job printed."""

from __future__ import annotations

import codecs
import sys
from argparse import ArgumentParser, Namespace, _SubParsersAction
from typing import TYPE_CHECKING

from tdmpc_lab.cli.common import find_job_id, project_here
from tdmpc_lab.errors import ExternalError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tdmpc_lab.app.queue.status import JobView
    from tdmpc_lab.jobs.paths import JobPaths

OK = 0
LINES = 40
_NAMED = 5


def add_logs(sub: _SubParsersAction[ArgumentParser]) -> None:
    """Add the command."""
    p = sub.add_parser(
        "logs",
        help="what a job's process printed; -f follows it to the job's end",
        description="Print the end of what a job's process printed. With -f, go on to the job's end; Ctrl-C stops "
        "the looking, never the job.",
    )
    p.add_argument("job", metavar="ID", help="a job id, or `last`; of an array, one task: 7_3")
    p.add_argument("-f", "--follow", action="store_true", help="go on with what comes, until the job ends")
    p.add_argument("-n", "--lines", type=int, default=LINES, metavar="N", help=f"last lines (default {LINES})")
    p.add_argument("--err", action="store_true", help="standard error instead of standard output")
    p.set_defaults(run=logs)


def logs(args: Namespace) -> int:
    """`logs ID [-f] [-n N] [--err]`; 3 when SLURM could not be asked about a job that has printed nothing."""
    from tdmpc_lab.app.joblog.catch_up import catch_up_notes
    from tdmpc_lab.app.queue.logs import Tail, follow, log_of
    from tdmpc_lab.app.queue.status import job_views

    if args.lines < 0:
        raise UsageError(f"--lines {args.lines} is below 0: give the number of last lines to print, 0 for none")
    project = project_here()
    paths = _one(project.require_jobs([find_job_id(project, args.job)]), args.job)
    tail = Tail(log_of(paths, errors=args.err))
    try:
        shown = tail.last(args.lines)
        write = _writer()
        write(shown)
        if args.follow:
            view = follow(project, paths.id, tail, write, _say)
        elif shown or args.lines == 0:
            return OK
        else:
            (view,) = job_views(project, [paths.id])
    except KeyboardInterrupt:
        _say(f"\nthe looking ends, the job does not; go on with: tdmpc-lab logs -f {paths.id}")
        raise
    finally:
        tail.close()
    catch_up_notes(project, [view])
    return _end(view, paths, errors=args.err)


def _one(found: list[JobPaths], text: str) -> JobPaths:
    if len(found) > 1:
        ids = ", ".join(paths.id for paths in found[:_NAMED]) + (", …" if len(found) > _NAMED else "")
        raise UsageError(f"{text} has {len(found)} tasks, each with its own log: name one of {ids}")
    return found[0]


def _end(view: JobView, paths: JobPaths, *, errors: bool) -> int:
    """Say how the job stands, and where to look when this log holds nothing."""
    from tdmpc_lab.app.queue.logs import log_of, state_in_words

    _say(state_in_words(view))
    if not _filled(log_of(paths, errors=errors)):
        other = log_of(paths, errors=not errors)
        option = "" if errors else " --err"
        here = f"{log_of(paths, errors=errors).name} is empty or not there"
        _say(f"{here}; {other.name} is not: tdmpc-lab logs {paths.id}{option}" if _filled(other) else here)
        if not view.slurm_answered:
            _say("error: SLURM could not be asked about this job")
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


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
