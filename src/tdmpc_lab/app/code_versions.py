"""Whether jobs that are compared ran the same code; and if not, in which files it differs."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from tdmpc_lab.app.code_changes import changed_files
from tdmpc_lab.jobs.paths import Project

if TYPE_CHECKING:
    from tdmpc_lab.report.comparison import Comparison
    from tdmpc_lab.report.runs import Run

# A change there changes no job: what a spec says is in the job's config.
_NO_CODE = ("experiments", "docs", "tests")
_NO_CODE_ENDINGS = (".md", ".txt", ".rst", ".ipynb")
_SHOWN_FILES = 4
_MOST_VERSIONS = 6


def code_remarks(project: Project, found: Comparison) -> list[str]:
    """A warning where the runs that count ran different code, or code that is not known; nothing where it is one."""
    used = {s.name: [figures.run for figures in s.figures] for s in found.summaries}
    versions: dict[str, list[Run]] = {}
    for run in itertools.chain.from_iterable(used.values()):
        versions.setdefault(run.code, []).append(run)
    if len(versions) < 2:
        return []
    folders = {code: project.snapshots / code for code in versions if code}
    if len(versions) <= _MOST_VERSIONS and len(folders) == len(versions) and all(f.is_dir() for f in folders.values()):
        changed = sorted(
            set(itertools.chain.from_iterable(_changed(*two) for two in itertools.pairwise(folders.values())))
        )
        if not changed:
            return []  # specs and texts alone
        more = f" and {len(changed) - _SHOWN_FILES} more" if len(changed) > _SHOWN_FILES else ""
        where = f"; it differs in {', '.join(changed[:_SHOWN_FILES])}{more}"
    else:
        where = ""
    ran = [f"{name} ran {_codes(runs)}" for name, runs in used.items() if runs]
    told = "; ".join(ran[:_MOST_VERSIONS]) + ("; …" if len(ran) > _MOST_VERSIONS else "")
    return [f"warning: the code is not the same: {told}{where}"]


def _codes(runs: list[Run]) -> str:
    words = dict.fromkeys(run.record.code or "code that is not known" for run in runs)
    return " and ".join(list(words)[:_MOST_VERSIONS])


def _changed(one: Path, other: Path) -> Iterator[str]:
    """The files of code that are not the same in two snapshots."""
    for line in changed_files(one, other):
        name = line.partition(" ")[2]
        if not name.endswith(_NO_CODE_ENDINGS) and not set(PurePosixPath(name).parts) & set(_NO_CODE):
            yield name
