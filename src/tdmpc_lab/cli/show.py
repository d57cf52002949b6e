"""`show`: everything about one job on a page; of an array, a line per task."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace, _SubParsersAction
from typing import TYPE_CHECKING

from tdmpc_lab.cli.common import add_json, find_job_id, project_here
from tdmpc_lab.cli.output import print_json
from tdmpc_lab.errors import ExternalError, RecordError
from tdmpc_lab.jobs.ids import expand_tasks, is_job_id

if TYPE_CHECKING:
    from tdmpc_lab.jobs.paths import Project

OK = 0


def add_show(sub: _SubParsersAction[ArgumentParser]) -> None:
    """Add the command."""
    p = sub.add_parser(
        "show",
        help="everything about one job on a page: what and why, state, attempts, results, files, what to do next",
        description="Everything about one job on a page: what it is and why, what differs, state and cause, attempts, "
        "results, checkpoints, videos, what its note says, and the commands to go on with. Of an array, a line per "
        "task.",
    )
    p.add_argument("job", metavar="ID", help="a job id, `last`, or the id of an array")
    add_json(p)
    p.set_defaults(run=show)


def show(args: Namespace) -> int:
    """`show ID`; 1 when the job's record can't be read, 3 when SLURM could not be asked about it."""
    from tdmpc_lab.app.joblog.catch_up import catch_up_notes
    from tdmpc_lab.app.queue.show import job_page, note_entry
    from tdmpc_lab.app.queue.status import JobView
    from tdmpc_lab.cli.pages import print_entry, print_page

    project = project_here()
    wanted = find_job_id(project, args.job)
    tasks = project.tasks_of(wanted) if is_job_id(wanted) else expand_tasks(wanted)
    if len(tasks) > 1 or (tasks and tasks != [wanted]):
        return _show_tasks(project, wanted, [paths.id for paths in project.require_jobs(tasks)], as_json=args.json)
    if is_job_id(wanted) and not project.is_recorded(wanted) and (entry := note_entry(project, wanted)):
        if args.json:
            print_json({"note": str(project.note(wanted)), **entry.as_dict()})
        else:
            print_entry(entry)
        return OK
    page = job_page(project, project.require_job(wanted).id)
    catch_up_notes(project, [page if isinstance(page, JobView) else page.view])
    if isinstance(page, JobView):
        raise RecordError(f"job {page.id} can't be read: {page.problem}")
    if args.json:
        print_json(page.as_dict(project))
    else:
        print_page(project, page)
    return _answer(page.view.slurm_answered)


def _show_tasks(project: Project, array: str, ids: list[str], *, as_json: bool) -> int:
    from tdmpc_lab.app.joblog.catch_up import catch_up_notes
    from tdmpc_lab.app.queue.show import array_commands, note_entry
    from tdmpc_lab.app.queue.status import job_views
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
