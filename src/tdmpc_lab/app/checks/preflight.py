"""The checks of a submit: whatever can be found wrong on this machine, in seconds, all of it at once."""

from __future__ import annotations

import os
import shutil
from collections.abc import Container, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

from tdmpc_lab.app.checks.memory import checkpoints_size, disk_findings, gpu_findings, host_findings, place
from tdmpc_lab.app.checks.trial import Trial, Trials
from tdmpc_lab.app.submit.specs import Dimensions, check_environments
from tdmpc_lab.config.loader import LoadedSpec
from tdmpc_lab.config.schema import ContainerConfig
from tdmpc_lab.errors import (
    EnvironmentSpecError,
    ExternalError,
    Finding,
    LabError,
    Level,
    PreflightError,
    Problem,
    SpecError,
    UsageError,
)
from tdmpc_lab.jobs.paths import Project
from tdmpc_lab.launch.nodes import NodeGroup

SILENCEABLE = ("gpu-memory", "memory", "partition-time")
"""What is found here and can be silenced as a rule of `lint` can."""
# What an environment says when it is not installed here; in a container it may be.
_NOT_INSTALLED = ("must be importable", "not installed")


@dataclass(frozen=True)
class CheckReport:
    """What was found, and what was learned of every spec that could be tried."""

    findings: tuple[Finding, ...]
    trials: dict[int, Trial] = field(default_factory=dict)
    """By the number of the spec."""

    @property
    def errors(self) -> list[Finding]:
        """What stops a submit."""
        return [finding for finding in self.findings if finding.level == "error"]

    @property
    def warnings(self) -> list[Finding]:
        """What does not."""
        return [finding for finding in self.findings if finding.level == "warning"]

    def raise_errors(self) -> None:
        """Raise PreflightError with all errors, if there are any."""
        if self.errors:
            raise PreflightError(self.errors)


def check_jobs(
    project: Project,
    items: Sequence[LoadedSpec],
    *,
    slurm: bool,
    sizes: Dimensions | None = None,
    try_agents: bool = True,
    slurm_needed: bool = True,
    off: Sequence[str] = (),
) -> CheckReport:
    """Look at everything that these jobs need; writes nothing. Points of a sweep that are alike are tried once.

    Args:
        slurm: they go to SLURM: agents are tried on the CPU, and what they ask for is compared to what there is.
        sizes: of observation and action, instead of making the environments.
        try_agents: make environments and agents; not for jobs that run other code than this.
        slurm_needed: SLURM that does not answer is an error.
        off: names of `SILENCEABLE` that are not to be told, beside those in the spec's own `lint`.
    """
    with ThreadPoolExecutor(2) as pool:  # importing torch takes longer than both
        store = pool.submit(_store_findings, project)
        nodes: Future[list[NodeGroup]] | None = pool.submit(_ask_nodes) if slurm else None
        found: list[Finding] = []
        trials: dict[int, Trial] = {}
        if try_agents:
            found += _environment_findings(project, items, in_container=slurm) if sizes is None else ()
            trials = _try(project, items, "cpu" if slurm else None, sizes, found)
        groups: list[NodeGroup] = []
        if nodes is not None:
            try:
                groups = nodes.result()
            except ExternalError as error:
                found.append(_no_answer(str(error), "error" if slurm_needed else "warning"))
        found += store.result()
    for number, item in enumerate(items):
        if slurm:
            found += _told(_site_findings(project, item, groups, trials.get(number)), {*off, *item.spec.lint.silent})
    found += disk_findings(project, [checkpoints_size(items[n], trial) for n, trial in trials.items()])
    return CheckReport(tuple(dict.fromkeys(found)), trials)


def _told(findings: Iterable[Finding], off: Container[str]) -> Iterator[Finding]:
    """Those that are not silenced, with the way to do so: an estimate may be wrong, and a cluster say one thing and do
    another."""
    for finding in findings:
        if finding.check not in SILENCEABLE:
            yield finding
        elif finding.check not in off:
            yield replace(
                finding, fix=f"{finding.fix}; " * bool(finding.fix) + f"--no-lint {finding.check} for silence"
            )


def _ask_nodes() -> list[NodeGroup]:
    from tdmpc_lab.launch.nodes import ask_nodes

    try:
        return ask_nodes()
    except UsageError as error:  # sinfo has nothing to refuse: its answer means that SLURM is not as it should be
        raise ExternalError(str(error)) from error


def _no_answer(text: str, level: Level) -> Finding:
    why = "partition, time limit, GPUs and memory were compared to nothing"
    return Finding(
        level=level,
        check="slurm",
        what=text,
        why=why,
        fix="try again when `sinfo` answers, or use --cluster local",
        outside=True,
    )


def problem_finding(problem: Problem, check: str, *, level: Level = "error", why: str = "") -> Finding:
    """A problem of a spec as something found."""
    where = problem.file if problem.line is None else f"{problem.file}:{problem.line}"
    return Finding(
        level=level,
        check=check,
        where=f"{where}: {problem.key}" if problem.key else where,
        what=problem.message,
        why=why,
        fix=problem.hint,
    )


def _environment_findings(project: Project, items: Sequence[LoadedSpec], *, in_container: bool) -> Iterator[Finding]:
    """As `check_environments`; what is only missing here is a warning for jobs that run in a container."""
    elsewhere = in_container and all(item.spec.slurm.container is not None for item in items)
    try:
        check_environments(project, items)
    except SpecError as error:
        for problem in error.problems:
            missing = elsewhere and any(words in problem.message for words in _NOT_INSTALLED)
            why = "the container may have it, which can't be seen from here" if missing else ""
            yield problem_finding(problem, "environment", level="warning" if missing else "error", why=why)


def _try(
    project: Project, items: Sequence[LoadedSpec], device: str | None, sizes: Dimensions | None, found: list[Finding]
) -> dict[int, Trial]:
    """Try every spec; what goes wrong is added to `found`."""
    from tdmpc_lab.training.build import one_thread

    trials = {}
    tries = Trials(project, device, sizes)
    told = any(finding.check == "environment" for finding in found)
    with one_thread():  # a login node is everybody's
        for number, item in enumerate(items):
            try:
                trials[number] = tries.of(item.spec)
            except LabError as error:
                if told and isinstance(error, EnvironmentSpecError):
                    continue
                outside = isinstance(error, ExternalError)
                found.append(Finding("error", "trial", str(error), where=str(item.path), outside=outside))
    return trials


def _site_findings(
    project: Project, item: LoadedSpec, groups: Sequence[NodeGroup], trial: Trial | None
) -> Iterator[Finding]:
    from tdmpc_lab.launch.nodes import mismatches

    for found in mismatches(item.spec.slurm, groups) if groups else ():
        yield replace(found, where=place(item, found.key))
    if item.spec.slurm.container is not None:
        yield from _container_findings(project, item, item.spec.slurm.container)
    if trial is not None:
        yield from gpu_findings(item, trial, groups)
        yield from host_findings(item, trial)


def _container_findings(project: Project, item: LoadedSpec, container: ContainerConfig) -> Iterator[Finding]:
    """The image and the folders bound into it, as far as they can be seen from here."""
    from tdmpc_lab.launch.sbatch import RUNTIMES, filled_in, image_path, is_uri

    image, where = image_path(container, project.root), place(item, "slurm.container.image")
    if is_uri(image):
        why, fix = "compute nodes often have no internet", "fetch it into a file once, and name that"
        what = f"the image {image} is fetched when the job starts"
        yield Finding(level="warning", check="container", where=where, what=what, why=why, fix=fix)
    elif not Path(image).exists():
        seen = Path(image).parent.is_dir()
        yield Finding(
            level="error" if seen else "warning",
            check="container",
            where=where,
            what=f"no image {image}" if seen else f"the folder of the image {image} can't be seen from here",
            why="the job would fail when it starts" if seen else "compute nodes may see it",
            fix="build or copy it there, or correct slurm.container.image",
        )
    for bind in container.bind:
        source = Path(filled_in(bind.partition(":")[0]))
        if not source.exists():
            yield Finding(
                level="warning",
                check="container",
                where=place(item, "slurm.container.bind"),
                what=f"{source} of slurm.container.bind can't be seen from here",
                why="a folder that the compute node does not have either ends the job",
                fix="correct it, or leave it out",
            )
    wanted = RUNTIMES if container.runtime == "auto" else (container.runtime,)
    if not item.spec.slurm.setup and not any(map(shutil.which, wanted)):
        what = f"{' or '.join(wanted)} is not on this machine"
        why, fix = "compute nodes may have it", "where it comes as a module: slurm.setup=[module load …]"
        yield Finding(level="warning", check="container", where=where, what=what, why=why, fix=fix)


def _store_findings(project: Project) -> list[Finding]:
    from tdmpc_lab.tracking.store import store_problem

    problem = store_problem(project.root)
    if not problem:
        return []
    why = "training continues without it, and metrics.jsonl holds everything"
    fix = "see to it before the job starts" + (", or unset MLFLOW_TRACKING_URI" * ("MLFLOW_TRACKING_URI" in os.environ))
    return [Finding(level="warning", check="mlflow", what=problem, why=why, fix=fix, outside=True)]
