"""`init`, `doctor`, `schema`: the project, the installation, a job's learning, the form of a spec."""

from __future__ import annotations

import shlex
import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from tdmpc_lab.app.health.installation import examine
from tdmpc_lab.app.health.learning import as_dict, diagnose_job
from tdmpc_lab.app.health.project import init as run
from tdmpc_lab.cli.common import FAILED, OK, add_json, find_job_id, print_json, project_here
from tdmpc_lab.config.json_schema import json_schema
from tdmpc_lab.errors import ExternalError, UsageError
from tdmpc_lab.jobs.find import require_jobs

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tdmpc_lab.app.health.project import Made
    from tdmpc_lab.errors import Finding


def doctor(args: Namespace) -> int:
    """`doctor [JOB]`: 0 when nothing is broken, 1 when something is, 3 when something outside is."""
    return _installation(args) if args.job is None else _job(args)


def _installation(args: Namespace) -> int:
    findings = examine(project_here())
    if args.json:
        print_json(
            [
                {"level": one.level, "name": one.check, "found": one.what, "fix": one.fix, "outside": one.outside}
                for one in findings
            ]
        )
    else:
        _show_findings(findings)
    errors = [one for one in findings if one.level == "error"]
    if not errors:
        return OK
    return ExternalError.exit_code if all(one.outside for one in errors) else FAILED


def _job(args: Namespace) -> int:
    project = project_here()
    found = require_jobs(project, [find_job_id(project, args.job)])
    if len(found) > 1:
        raise UsageError(f"{args.job} has {len(found)} tasks, each with figures of its own: name one, as {found[0].id}")
    figures, signs = diagnose_job(found[0])
    if args.json:
        print_json({"job": found[0].id, **as_dict(figures, signs)})
    else:
        print(f"job {found[0].id}, step {figures.step:,}; what the figures mean: docs/diagnostics.md")
        _show_findings(signs)
    return FAILED if any(sign.level == "warning" for sign in signs) else OK


def _show_findings(findings: Sequence[Finding]) -> None:
    width = max(len(one.check) for one in findings)
    for one in findings:
        print(f"{one.level:7}  {one.check:{width}}  {one.what}")
        if one.fix:
            print(f"{'':7}  {'':{width}}  → {one.fix}")


_FILES_SHOWN = 5


def init(args: Namespace) -> int:
    """`init [FOLDER] [--shared [--group NAME]]`: 1 when something could not be shared."""
    made = run(_folder(args.folder), group=args.group, shared=args.shared)
    if args.json:
        print_json(made.as_dict())
    else:
        _show_made(made)
    return FAILED if made.left else OK


def _folder(text: str | None) -> Path:
    """The folder that was named; by default the project around here, which a folder in it is not to become, too."""
    from tdmpc_lab.jobs.paths import find_project

    if text is not None:
        return Path(text)
    try:
        return find_project().root
    except UsageError:
        return Path.cwd()


def _show_made(made: Made) -> None:
    new = f"made {', '.join(made.made)}" if made.made else "all folders are there"
    print(f"project {made.folder}: {new}")
    if made.group is None:
        return
    print(f"shared with group {made.group}: {made.changed:,} files and folders changed; others see nothing")
    for one in made.left[:_FILES_SHOWN]:
        print(f"left as it was: {one.path} ({one.why})", file=sys.stderr)
    if len(made.left) > _FILES_SHOWN:
        print(f"left as they were: {len(made.left) - _FILES_SHOWN:,} more", file=sys.stderr)
    if made.left:
        print("their owners mend that: tdmpc-lab init --shared", file=sys.stderr)
    for path in made.closed_above:
        print(
            f"warning: {path} keeps the group out: chmod o+x {shlex.quote(str(path))}, or move the project",
            file=sys.stderr,
        )
    if made.git:
        print(f"each of the others, once: git config --global --add safe.directory {shlex.quote(str(made.folder))}")


def add_init(p: ArgumentParser) -> None:
    """The words of `init`."""
    p.description = (
        "Make the folders of a project where they are missing. With --shared, give everything in it to one "
        "group, now and whatever is made in it later, and close it to others; see docs/sharing.md."
    )
    p.add_argument("folder", nargs="?", metavar="FOLDER", help="default: the project here, else the current folder")
    p.add_argument("--shared", action="store_true", help="share it with the group of its folder, or with --group")
    p.add_argument("--group", metavar="NAME", help="who shares it: the name of a group that you are in")
    add_json(p)
    p.set_defaults(run=init)


def schema(_args: Namespace) -> int:
    """`schema`."""
    print_json(json_schema())
    return OK


def add_doctor(p: ArgumentParser) -> None:
    """The words of `doctor`."""
    p.description = (
        "Without JOB, check the installation. With it, read what the job measured of its agent, and say "
        "what looks wrong and which setting to look at; 1 when something does."
    )
    p.add_argument("job", nargs="?", metavar="JOB", help="a job id, or `last`")
    add_json(p)
    p.set_defaults(run=doctor)


def add_schema(p: ArgumentParser) -> None:
    """The words of `schema`."""
    p.set_defaults(run=schema)
