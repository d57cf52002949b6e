"""`sync`: MLflow brought level with the job folders; and the same in small before `status` and `ui`."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace, _SubParsersAction
from collections.abc import Callable

from tdmpc_lab.cli.common import add_json, find_job_id, project_here
from tdmpc_lab.cli.output import print_json
from tdmpc_lab.text import count

OK, FAILED = 0, 1
AT_MOST_S = 10.0

Command = Callable[[Namespace], int]


def add_sync(sub: _SubParsersAction[ArgumentParser]) -> None:
    """The command's words."""
    p = sub.add_parser(
        "sync",
        help="bring MLflow level with the job folders: what it lacks is sent, what it has is left as it is",
        description="Bring MLflow level with the job folders: values that are missing, the outcome of jobs that were "
        "killed, notes, videos; runs that are missing are made anew. Done twice, the second time changes nothing.",
    )
    p.add_argument("jobs", nargs="*", metavar="ID", help="only these jobs (default: all)")
    add_json(p)
    p.set_defaults(run=sync, rest="jobs")


def sync(args: Namespace) -> int:
    """`sync [ID ...]`; 1 when a job could not be brought level."""
    from tdmpc_lab.app.mlflow.sync import sync as bring_level

    project = project_here()
    ids = [paths.id for paths in project.require_jobs([find_job_id(project, job) for job in args.jobs])] or None
    done = []
    for job in bring_level(project, ids):
        done.append(job)
        if job.what == "sent":
            print(f"{job.id}: sent {count(job.points, 'value')}, {job.detail}", flush=True)
        elif job.what == "failed":
            print(f"{job.id}: {job.detail}", file=sys.stderr)
        elif job.what == "left" and ids is not None:
            print(f"{job.id}: left alone: {job.detail}")
    found = {what: sum(job.what == what for job in done) for what in ("sent", "level", "left", "failed")}
    print(
        f"{count(found['sent'], 'job')} brought level, {found['level']} level already, {found['left']} left alone "
        f"(waiting, running or never started), {found['failed']} failed"
    )
    if args.json:
        print_json([job.as_dict() for job in done])
    return FAILED if found["failed"] else OK


def with_sync(command: Command) -> Command:
    """The command, while MLflow is sent what it is known to lack; that is waited for at its end, `AT_MOST_S`."""

    def run(args: Namespace) -> int:
        from tdmpc_lab.app.mlflow.sync import begin, wait_for

        sending = begin(project_here())
        code = command(args)
        if sending is not None:
            sys.stdout.flush()
            wait_for(sending, AT_MOST_S)
        return code

    return run


def after_sync(command: Command) -> Command:
    """The command, after MLflow was sent what it is known to lack, as far as that takes no longer than `AT_MOST_S`."""

    def run(args: Namespace) -> int:
        from tdmpc_lab.app.mlflow.sync import begin, wait_for

        wait_for(begin(project_here()), AT_MOST_S)
        return command(args)

    return run
