"""What jobs ask SLURM for, before it is asked: options that clash, and the jobs that others wait for."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace

from tdmpc_lab.app.queue.status import job_views
from tdmpc_lab.config.loader import LoadedSpec
from tdmpc_lab.config.schema import SlurmConfig
from tdmpc_lab.errors import Problem, SpecError, UsageError
from tdmpc_lab.jobs.find import job_ids, require_job
from tdmpc_lab.jobs.ids import is_slurm_id
from tdmpc_lab.jobs.paths import Project
from tdmpc_lab.jobs.state import State

KINDS = ("afterok", "afterany")


def launch_overrides(
    project: Project, profile: str | None, after: Sequence[str], array_limit: int | None = None
) -> list[str]:
    """`--profile NAME`, `--after [KIND:]ID ...` and `--array-limit N` as the overrides that they stand for.

    Raises:
        UsageError: an id names no job of this project, or no SLURM job, or the kind is not known.
    """
    words = [] if profile is None else [f"slurm.profile={json.dumps(profile)}"]
    if after:
        words.append(f"slurm.after={json.dumps([_dependency(project, text) for text in after])}")
    if array_limit is not None:
        words.append(f"slurm.array_limit={array_limit}")
    return words


def refuse_profile(job: str, overrides: Sequence[str]) -> None:
    """Raise UsageError where a profile is chosen for a job made out of an old one, whose spec says everything."""
    if any(word.partition("=")[0].strip() == "slurm.profile" for word in overrides):
        raise UsageError(
            f"job {job} has its resources in full, so a profile would change nothing; change single ones, as in "
            "slurm.partition=week"
        )


def _dependency(project: Project, text: str) -> str:
    kind, colon, job = text.rpartition(":")
    kind = kind if colon else KINDS[0]
    if kind not in KINDS:
        raise UsageError(f"--after {text}: found {kind!r}; allowed: {', '.join(f'{known}:ID' for known in KINDS)}, ID")
    return f"{kind}:{_known(project, job, f'--after {text}')}"


def _known(project: Project, job: str, where: str) -> str:
    """The id, if it is that of a SLURM job or job array of this project. Raises UsageError."""
    ids = job_ids(project)
    if job == "last" and ids:
        job = ids[-1]
    if job not in ids and not _tasks(job, ids):
        job = require_job(project, job).id
    if not is_slurm_id(job):
        raise UsageError(f"{where}: {job} is no SLURM job, so SLURM can't wait for it; `tdmpc-lab wait {job}` can")
    return job


def _tasks(job: str, ids: Sequence[str]) -> list[str]:
    """The tasks of a job array among the ids."""
    return [other for other in ids if other.startswith(f"{job}_")]


def check_resources(loaded: Sequence[LoadedSpec]) -> None:
    """See that no two keys of a `slurm` section exclude each other, and that sbatch knows the extra options.

    Raises:
        SpecError: with every problem of every spec, at the place where it was given.
    """
    problems = list(dict.fromkeys(problem for item in loaded for problem in _problems(item)))
    if problems:
        raise SpecError(problems)


def _problems(item: LoadedSpec) -> list[Problem]:
    from tdmpc_lab.launch.options import KNOWN_OPTIONS, extra_options, is_abbreviated, option_problems

    config = item.spec.slurm
    known = KNOWN_OPTIONS
    asked = extra_options(config)
    if asked.keys() - known:  # a plug-in of this cluster may have added it
        from tdmpc_lab.launch.slurm import sbatch_options, sbatch_takes

        known |= sbatch_options()
        # Nor does the help tell of all that there is.
        known |= {n for n in asked.keys() - known if not is_abbreviated(n) and sbatch_takes(n, asked[n])}
    places = [(found, item.origin(found.key)) for found in option_problems(config, known)]
    return [replace(found, file=origin.source, line=origin.line) for found, origin in places]


def settle_dependencies(project: Project, item: LoadedSpec) -> tuple[LoadedSpec, list[str]]:
    """The spec without those jobs in `slurm.after` that need no waiting for, and a sentence about each of them.

    SLURM forgets jobs some minutes after their end, and then refuses to wait for them.

    Raises:
        SpecError: a job is none of this project's, or has ended so that a job after it would never start.
    """
    config = item.spec.slurm
    left, said, problems = [], [], []
    for entry in config.after:
        kind, _, job = entry.rpartition(":")
        try:
            _known(project, job, "slurm.after")
        except UsageError as error:
            problems.append(_after_problem(item, str(error), ""))
            continue
        state = _end(project, job)
        if state is None:
            left.append(entry)
        elif state is State.COMPLETED or kind == "afterany":
            said.append(f"{job} is over already ({state}): nothing to wait for")
        else:
            message = f"{job} is {state}: a job that waits for its success would never start"
            problems.append(_after_problem(item, message, f"write afterany:{job}, or leave it out"))
    if problems:
        raise SpecError(problems)
    return _with_slurm(item, replace(config, after=tuple(left))), said


def _end(project: Project, job: str) -> State | None:
    """How a job, or the first task that went wrong of a job array, has ended; None while it continues."""
    ids = _tasks(job, job_ids(project)) or [job]
    states = [view.status.state for view in job_views(project, ids) if view.status is not None]
    if len(states) < len(ids) or not all(state.ended for state in states):
        return None
    return next((state for state in states if state is not State.COMPLETED), State.COMPLETED)


def _after_problem(item: LoadedSpec, message: str, hint: str) -> Problem:
    source, line = item.origin("slurm.after")
    return Problem(file=source, line=line, key="slurm.after", message=message, hint=hint)


def _with_slurm(item: LoadedSpec, config: SlurmConfig) -> LoadedSpec:
    return replace(item, spec=replace(item.spec, slurm=config))
