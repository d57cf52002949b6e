"""`doctor`: whether the installation can do its work, point by point, with what to do about it."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import re
import shlex
import shutil
import stat
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tdmpc_lab.app.checks.memory import GIB, unwritable
from tdmpc_lab.app.health.project import closed_above
from tdmpc_lab.config.project import check_profiles, profile_files
from tdmpc_lab.errors import ExternalError, Finding, LabError, Level, SpecError, UsageError
from tdmpc_lab.files import nearest
from tdmpc_lab.jobs.find import folder_names
from tdmpc_lab.jobs.git import GitError, NoRepositoryError, git
from tdmpc_lab.jobs.paths import Project
from tdmpc_lab.sharing import Closed, group_name, is_member, is_shared, not_shared, reason, user_name
from tdmpc_lab.text import one_line

OLDEST = (3, 11)
# Without the first the package does nothing; the others are for some of its commands.
NEEDED = ("torch", "numpy", "gymnasium", "pydantic", "PyYAML", "submitit", "mlflow", "rich", "pandas", "matplotlib")
HOCKEY = "Box2D"
_LITTLE_DISK = 5 * GIB
_TIMEOUT_S = 20


def examine(project: Project) -> list[Finding]:
    """Look at everything; nothing is written, and nothing raises."""
    parts: list[Callable[[], Iterator[Finding]]] = [
        _python,
        _packages,
        _torch,
        _slurm,
        lambda: _profiles(project),
        lambda: _store(project),
        lambda: look_at_git(project),
        lambda: look_at_sharing(project),
        lambda: _disk(project),
        lambda: _schema(project),
    ]
    with ThreadPoolExecutor(4) as pool:  # most of them wait for another program
        return [point for points in pool.map(_looked_at, parts) for point in points]


def _looked_at(part: Callable[[], Iterator[Finding]]) -> list[Finding]:
    """The points of one part; what can't be looked at is one, too."""
    points: list[Finding] = []
    try:
        points.extend(part())
    except OSError as error:
        points.append(Finding("error", "files", reason(error), "see to its permissions", outside=True))
    return points


def _python() -> Iterator[Finding]:
    found = f"{platform.python_version()} ({sys.executable})"
    if sys.version_info < OLDEST:
        needed = ".".join(map(str, OLDEST))
        yield Finding(
            "error", "python", found, f"install Python {needed} or newer, then `make venv PYTHON=/path/to/it`"
        )
    else:
        yield Finding("ok", "python", found)


def _packages() -> Iterator[Finding]:
    versions = {name: _version(name) for name in NEEDED}
    missing = [name for name, version in versions.items() if version is None]
    if missing:
        yield Finding("error", "packages", f"missing: {', '.join(missing)}", "run `make venv` in the project's folder")
    else:
        yield Finding("ok", "packages", ", ".join(f"{name} {version}" for name, version in versions.items()))
    if importlib.util.find_spec(HOCKEY) is None:
        fix = "run `make venv`; without it `env: {id: hockey}` can't be used, all else can"
        yield Finding("warning", "hockey", "Box2D is missing", fix)
    else:
        yield Finding("ok", "hockey", "built in, with Box2D")


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _torch() -> Iterator[Finding]:
    if importlib.util.find_spec("torch") is None:
        return  # `packages` says so
    try:
        from tdmpc_lab.agent.device import describe_torch

        found = describe_torch()
    except (ImportError, OSError, RuntimeError) as error:
        yield Finding("error", "torch", f"can't be loaded: {error}", "run `make clean` and `make venv`")
        return
    yield Finding("ok", "torch", found)


def _slurm() -> Iterator[Finding]:
    missing = [name for name in ("sbatch", "srun", "squeue", "sinfo", "scontrol", "scancel") if not shutil.which(name)]
    if len(missing) == 6:
        yield Finding("ok", "slurm", "not on this machine: jobs run here (--cluster local)")
        return
    if missing:
        fix = "ask the administrators, or submit from the login node"
        yield Finding("error", "slurm", f"commands missing: {', '.join(missing)}", fix, outside=True)
        return
    from tdmpc_lab.launch.commands import missing_configuration
    from tdmpc_lab.launch.nodes import ask_nodes

    try:
        groups = ask_nodes()
    except (ExternalError, UsageError) as error:
        fix = "`scontrol ping` tells which controller is asked; --cluster local runs jobs here"
        if unconfigured := missing_configuration():
            what, _, fix = unconfigured.partition(". ")
        yield Finding("error", "slurm", what if unconfigured else str(error), fix, outside=True)
        return
    partitions = dict.fromkeys(group.partition + ("" if group.up else " (down)") for group in groups)
    nodes = sum(group.nodes for group in groups if group.partition == groups[0].partition) if groups else 0
    types = sorted({kind or "without a type" for group in groups for kind in group.gpus})
    gpus = f"; GPUs: {', '.join(types)}" if types else "; no GPUs"
    first = f" ({nodes} nodes in the first)" if nodes else ""
    yield Finding("ok", "slurm", f"answers; partitions: {', '.join(partitions)}{first}{gpus}")
    yield _accounting()


def _accounting() -> Finding:
    from tdmpc_lab.launch.commands import run

    try:
        done = run(["sacct", "--noheader", "--format=JobID", "--starttime=now"], _TIMEOUT_S)
    except ExternalError as error:
        return Finding("warning", "accounting", str(error), "ends of jobs are told by their own files alone")
    if done.returncode:
        fix = "nothing: how jobs ended is told by their own files"
        return Finding("warning", "accounting", f"off: {one_line(done.stderr) or 'no reason given'}", fix)
    return Finding("ok", "accounting", "on")


def _profiles(project: Project) -> Iterator[Finding]:
    files = profile_files(project.root)
    there = [str(path) for path in files if path.exists()]
    if not there:
        yield Finding("ok", "profiles", f"none ({' and '.join(str(path) for path in files)} are not there)")
        return
    try:
        names = check_profiles(files)
    except SpecError as error:
        for problem in error.problems:
            yield Finding("error", "profiles", str(problem), "correct the file")
        return
    yield Finding("ok", "profiles", f"{', '.join(names) or 'none'} in {' and '.join(there)}")


def _store(project: Project) -> Iterator[Finding]:
    from tdmpc_lab.tracking.store import public_uri, refused_by_mlflow, store_problem, store_uri

    if problem := store_problem(project.root) or refused_by_mlflow(store_uri(project.root)):
        fix = "jobs run without it; start the server, or name another in MLFLOW_TRACKING_URI or tdmpc-lab.yaml"
        yield Finding("error", "mlflow", problem, fix, outside=True)
        return
    try:
        yield Finding("ok", "mlflow", public_uri(store_uri(project.root)))
    except LabError as error:
        yield Finding("error", "mlflow", str(error), "change MLFLOW_TRACKING_URI")


def look_at_git(project: Project) -> Iterator[Finding]:
    if shutil.which("git") is None:
        yield Finding("warning", "git", "not installed", "install it: jobs are recorded with the commit they ran")
        return
    try:
        yield Finding("ok", "git", f"commit {git(project.root, 'rev-parse', '--short', 'HEAD').strip()}")
    except NoRepositoryError as error:
        fix = "run `git init` and commit: the code of a job is kept from git's files"
        yield Finding("warning", "git", str(error), fix)
    except GitError as error:
        yield Finding("warning", "git", *_why_no_commit(project, error))


def _why_no_commit(project: Project, error: GitError) -> tuple[str, str]:
    """What is wrong with a repository whose commit can't be told, and what to do."""
    try:
        git(project.root, "rev-parse", "--show-toplevel")
    except GitError:
        return str(error), "the code of a job is kept from git's files: without them it runs the project's own"
    return f"{project.root} is in a repository without a commit", "commit: jobs are recorded with the commit they ran"


def look_at_sharing(project: Project) -> Iterator[Finding]:
    """Whether those who use the project can all use all of it, and nobody else."""
    root = project.root
    status = root.stat()
    if not is_shared(root):
        users = sorted({user_name(uid) for uid in {status.st_uid, os.getuid(), *_owners(project)}})
        if len(users) == 1:
            yield Finding("ok", "sharing", f"of {users[0]} alone; for a group: tdmpc-lab init --shared")
        else:
            found = f"{', '.join(users)} use it, and it is not set up for several users"
            yield Finding("warning", "sharing", found, _by_owner(status.st_uid))
        return
    group = group_name(status.st_gid)
    if not is_member(status.st_gid):
        found = f"shared with group {group}, which you are not in"
        yield Finding("error", "sharing", found, "ask who looks after the machine to add you to it", outside=True)
        return
    points = [*_open_to_others(root, status), *_closed_above(root, status.st_gid), *_not_shared(root, status.st_gid)]
    yield from points or [Finding("ok", "sharing", f"shared with group {group}, closed to others")]


def _owners(project: Project) -> set[int]:
    """Who has jobs in the project."""
    return {project.job(name).folder.lstat().st_uid for name in folder_names(project)}


def _by_owner(uid: int) -> str:
    who = "" if uid == os.getuid() else f", as {user_name(uid)}"
    return f"tdmpc-lab init --shared{who}"


def _open_to_others(root: Path, status: os.stat_result) -> Iterator[Finding]:
    if status.st_mode & stat.S_IRWXO:
        found = f"users outside of group {group_name(status.st_gid)} can look into {root}"
        yield Finding("warning", "sharing", found, _by_owner(status.st_uid))


def _closed_above(root: Path, gid: int) -> Iterator[Finding]:
    for folder in closed_above(root, gid):
        fix = f"chmod o+x {shlex.quote(str(folder))}, or move the project"
        yield Finding("warning", "sharing", f"{folder} keeps group {group_name(gid)} out", fix, outside=True)


def _not_shared(root: Path, gid: int) -> Iterator[Finding]:
    """One point for each user who owns what the others can't use."""
    found: dict[int, list[Closed]] = {}
    for closed in not_shared(root, gid):
        found.setdefault(closed.owner, []).append(closed)
    for owner, of_owner in found.items():
        first = of_owner[0]
        more = f" and {len(of_owner) - 1:,} more" if len(of_owner) > 1 else ""
        told = f"the group can't use {first.path} ({first.why}){more}, of {user_name(owner)}"
        yield Finding("error", "sharing", told, _by_owner(owner), outside=True)


def _disk(project: Project) -> Iterator[Finding]:
    for folder in (project.jobs, project.notes, project.mlruns):
        if problem := unwritable(folder):
            yield Finding("error", "folders", problem, "see to its permissions", outside=True)
    free = shutil.disk_usage(nearest(project.root)).free
    level: Level = "ok" if free > _LITTLE_DISK else "warning"
    fix = "" if level == "ok" else "remove old job folders; a full-size checkpoint takes some 250 MB"
    yield Finding(level, "disk", f"{free / GIB:.1f} GiB left at {project.root}; a quota can't be seen here", fix)


def _schema(project: Project) -> Iterator[Finding]:
    """Whether an editor completes specs: a comment in them that names a schema which is there."""
    named = re.compile(r"^# yaml-language-server: \$schema=(\S+)", re.MULTILINE)
    for spec in sorted(project.experiments.glob("*.yaml")):
        match = named.search(spec.read_text(encoding="utf-8", errors="replace"))
        if match and "://" not in match[1] and not (spec.parent / match[1]).exists():
            fix = f"tdmpc-lab schema > {os.path.relpath((spec.parent / match[1]).resolve(), Path.cwd())}"
            yield Finding("warning", "editor", f"{spec} names the schema {match[1]}, which is not there", fix)
            return
    yield Finding("ok", "editor", "`tdmpc-lab schema` prints the schema for completion")
