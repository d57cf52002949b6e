"""What several commands need: the project they work in, and the job that was meant."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import TYPE_CHECKING

from tdmpc_lab.errors import UsageError

if TYPE_CHECKING:
    from tdmpc_lab.jobs.paths import Project


def project_here() -> Project:
    """The project around the working directory; in a shared one this process makes its files for the group.

    Raises UsageError when there is none.
    """
    from tdmpc_lab.jobs.paths import find_project
    from tdmpc_lab.sharing import share_new_files

    project = find_project()
    share_new_files(project.root)
    return project


def find_job_id(project: Project, text: str) -> str:
    """The id that was typed; `last` is the newest job. Raises UsageError for `last` without any job."""
    if text != "last":
        return text
    ids = project.job_ids()
    if not ids:
        raise UsageError("there are no jobs yet")
    return ids[-1]


def add_json(p: ArgumentParser, default: object = False) -> None:
    """Add `--json`. Of a command within a command: `default` argparse.SUPPRESS, or it undoes what came before."""
    p.add_argument(
        "--json", action="store_true", default=default, help="one JSON document on standard output, nothing else there"
    )
