"""`note` and `verdict`: a person's words about a job."""

from __future__ import annotations

import sys
from argparse import Namespace
from typing import TYPE_CHECKING

from tdmpc_lab.cli.common import find_job_id, project_here
from tdmpc_lab.cli.output import print_json
from tdmpc_lab.errors import UsageError

if TYPE_CHECKING:
    from tdmpc_lab.jobs.paths import Project
    from tdmpc_lab.notes.verdict import Verdict

OK = 0


def note(args: Namespace) -> int:
    """`note ID [TEXT]`."""
    from tdmpc_lab.app.joblog.edit import add_words, edit, ensure_note, noted_id
    from tdmpc_lab.app.joblog.write import read_note

    project = project_here()
    job = noted_id(project, find_job_id(project, args.job))
    if args.edit and args.text:
        raise UsageError("words to add and --edit: give one of them")
    _catch_up(project, job)
    text = " ".join(args.text)
    if args.text and not text.strip():
        raise UsageError(f'there are no words to add: tdmpc-lab note {job} "what you saw"')
    if args.edit:
        changed = edit(project, job)
    elif text:
        changed = add_words(project, job, text)
    else:
        if project.is_recorded(job):
            ensure_note(project, job)  # it could not be written when the job ran
        whole = read_note(project, job)
        if args.json:
            print_json({"id": job, "note": str(project.note(job)), "text": whole})
        else:
            print(whole, end="")
        return OK
    _spread(project, job, changed)
    if args.json:
        print_json({"id": job, "note": str(project.note(job)), "text": changed.decode(errors="replace")})
    else:
        print(f"{job}: {project.note(job).relative_to(project.root)}")
    return OK


def verdict(args: Namespace) -> int:
    """`verdict ID good|bad|unclear REASON`."""
    from tdmpc_lab.app.joblog.edit import judge, noted_id

    project = project_here()
    job = noted_id(project, find_job_id(project, args.job))
    _catch_up(project, job)
    said, changed = judge(project, job, args.judgement, " ".join(args.because), args.cause)
    _spread(project, job, changed, said)
    if args.json:
        print_json({"id": job, "note": str(project.note(job)), **said.as_dict()})
    else:
        print(f"{job}: {said.line}")
    return OK


def _catch_up(project: Project, job: str) -> None:
    """The job's note, or that of the whole array, says how it ended before words are added or read."""
    from tdmpc_lab.app.joblog.catch_up import catch_up_notes
    from tdmpc_lab.app.queue.status import job_views

    ids = project.tasks_of(job) or ([job] if project.is_recorded(job) else [])
    catch_up_notes(project, job_views(project, ids))


def _spread(project: Project, job: str, changed: bytes, said: Verdict | None = None) -> None:
    """What the note says now goes into the roll-up and into MLflow."""
    from tdmpc_lab.app.joblog.edit import tell_mlflow
    from tdmpc_lab.app.joblog.log import refresh_rollup

    refresh_rollup(project)
    if problem := tell_mlflow(project, job, changed, said):
        print(f"warning: the note has it, MLflow not: {problem}", file=sys.stderr)
