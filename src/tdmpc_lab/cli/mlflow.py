"""`sync`, `ui`: MLflow in sync with the job folders, and its pages."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace

from tdmpc_lab.app.mlflow.sync import sync as bring_level
from tdmpc_lab.cli.common import FAILED, OK, add_json, find_job_id, positive, print_json, project_here
from tdmpc_lab.errors import ExternalError
from tdmpc_lab.jobs.find import require_jobs
from tdmpc_lab.text import count

AT_MOST_S = 10.0


def sync(args: Namespace) -> int:
    """`sync [ID ...]`; 1 when a job could not be brought in sync."""
    project = project_here()
    ids = [paths.id for paths in require_jobs(project, [find_job_id(project, job) for job in args.jobs])] or None
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
        f"{count(found['sent'], 'job')} brought in sync, {found['level']} in sync already, {found['left']} left alone "
        f"(waiting, running or never started), {found['failed']} failed"
    )
    if args.json:
        print_json([job.as_dict() for job in done])
    return FAILED if found["failed"] else OK


def add_sync(p: ArgumentParser) -> None:
    """The words of `sync`."""
    p.description = (
        "Bring MLflow in sync with the job folders: values that are missing, the outcome of jobs that were "
        "killed, notes, videos; runs that are missing are made anew. Done twice, the second time changes nothing."
    )
    p.add_argument("jobs", nargs="*", metavar="ID", help="only these jobs (default: all)")
    add_json(p)
    p.set_defaults(run=sync, rest="jobs")


def ui(args: Namespace) -> int:
    """`ui`: after MLflow was sent what it lacks, as far as that takes no longer than `AT_MOST_S`."""
    from tdmpc_lab.app.mlflow.sync import begin, start_following, wait_for
    from tdmpc_lab.app.mlflow.ui import make_ready, run_ui, ui_for

    project = project_here()
    wait_for(begin(project), AT_MOST_S)
    found = ui_for(project, args.port, args.which)
    if args.print_only:
        print(found.shell_line())
        return OK
    if problem := make_ready(project):
        print(f"warning: the ready views are as they were: {problem}", file=sys.stderr)
    if found.running is not None:
        r = found.running
        print(f"MLflow for {project.root} runs already: process {r.pid} of {r.user} on {r.host}", file=sys.stderr)
        print(f"from another machine, first: {found.tunnel}", file=sys.stderr)
    if found.command is None:
        print(found.url)
        return OK if problem is None else ExternalError.exit_code
    print(f"MLflow for {project.root}: {found.url} (answers after 5 to 15 seconds)", file=sys.stderr)
    print(f"from another machine, first: {found.tunnel}", file=sys.stderr)
    print("end it with Ctrl-C", file=sys.stderr)
    start_following(project)
    run_ui(found)
    return FAILED


def add_ui(p: ArgumentParser) -> None:
    """The words of `ui`."""
    p.add_argument(
        "which",
        nargs="?",
        metavar="EXPERIMENT|ID",
        help="the experiment, or the job, whose page is named (default: newest)",
    )
    p.add_argument("--port", type=positive, metavar="N", help="default: the first free one from 5000 on")
    p.add_argument("--print", action="store_true", dest="print_only", help="print the command instead of running it")
    p.set_defaults(run=ui)
