"""`doctor`: of the installation, and of a job's learning."""

from __future__ import annotations

from argparse import Namespace

from tdmpc_lab.cli.common import find_job_id, project_here
from tdmpc_lab.cli.output import print_json
from tdmpc_lab.errors import ExternalError, UsageError

OK, FAILED = 0, 1


def doctor(args: Namespace) -> int:
    """`doctor [JOB]`: 0 when nothing is broken, 1 when something is, 3 when something outside is."""
    return _installation(args) if args.job is None else _job(args)


def _installation(args: Namespace) -> int:
    from tdmpc_lab.app.health.installation import examine

    points = examine(project_here())
    if args.json:
        print_json([point.as_dict() for point in points])
    else:
        _show([(point.level, point.name, point.found, point.fix) for point in points])
    errors = [point for point in points if point.level == "error"]
    if not errors:
        return OK
    return ExternalError.exit_code if all(point.outside for point in errors) else FAILED


def _job(args: Namespace) -> int:
    from tdmpc_lab.app.health.learning import as_dict, diagnose_job

    project = project_here()
    found = project.require_jobs([find_job_id(project, args.job)])
    if len(found) > 1:
        raise UsageError(f"{args.job} has {len(found)} tasks, each with figures of its own: name one, as {found[0].id}")
    figures, signs = diagnose_job(found[0])
    if args.json:
        print_json({"job": found[0].id, **as_dict(figures, signs)})
    else:
        print(f"job {found[0].id}, step {figures.step:,}; what the figures mean: docs/diagnostics.md")
        _show([(sign.level, sign.name, sign.found, sign.look_at) for sign in signs])
    return FAILED if any(sign.level == "warning" for sign in signs) else OK


def _show(rows: list[tuple[str, str, str, str]]) -> None:
    width = max(len(name) for _, name, _, _ in rows)
    for level, name, found, remedy in rows:
        print(f"{level:7}  {name:{width}}  {found}")
        if remedy:
            print(f"{'':7}  {'':{width}}  → {remedy}")
