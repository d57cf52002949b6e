"""`describe` and `check`: looking at a spec's agent without training it."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tdmpc_lab.app.checks.blamed import find_blamed, findings
from tdmpc_lab.app.checks.lint import lint
from tdmpc_lab.app.checks.preflight import CheckReport, check_jobs, problem_finding
from tdmpc_lab.app.submit.resources import check_resources
from tdmpc_lab.app.submit.specs import Dimensions, differences, find_spec, load_all, resolve_dimensions
from tdmpc_lab.app.submit.starts import find_starts
from tdmpc_lab.app.submit.submit import JobPlan
from tdmpc_lab.config.loader import load_spec
from tdmpc_lab.config.schema import Spec
from tdmpc_lab.errors import SpecError
from tdmpc_lab.jobs.paths import Project

if TYPE_CHECKING:
    from tdmpc_lab.agent.describe import Architecture


def load_one(path: Path, overrides: Sequence[str]) -> Spec:
    """The spec, or the first point of its sweep, which is said."""
    loaded = load_spec(path, overrides)
    if loaded.point is not None and loaded.point.count > 1:
        print(f"{path} has a sweep; this is {loaded.point}", file=sys.stderr)
    return loaded.spec


def describe_spec(
    project: Project,
    spec_file: str,
    overrides: Sequence[str],
    observation_dim: int | None,
    action_dim: int | None,
) -> Architecture:
    """The architecture report of a spec. Raises SpecError, EnvironmentSpecError, UsageError."""
    path = find_spec(project, spec_file)
    spec = load_one(path, overrides)
    obs, act, length = resolve_dimensions(spec, observation_dim, action_dim, path)
    from tdmpc_lab.agent.describe import describe

    return describe(obs, act, spec.agent, spec.planner, episode_length=length)


def check_spec(
    project: Project,
    spec_file: str,
    overrides: Sequence[str],
    observation_dim: int | None,
    action_dim: int | None,
    *,
    slurm: bool,
) -> tuple[dict[str, Any], CheckReport]:
    """What a submit looks at before it starts a job, alone: facts about the spec, and everything that was found.

    Of a sweep every point is tried; the facts are those of the first. With the two sizes given, the environment
    is left out. SLURM that does not answer is a warning here.

    Raises:
        SpecError, UsageError: the spec can't be read, or the sizes are wrong.
    """
    path = find_spec(project, spec_file)
    items = load_all(project, [spec_file], overrides)
    check_resources(items)
    sizes = None
    if observation_dim is not None or action_dim is not None:
        obs, act, length = resolve_dimensions(items[0].spec, observation_dim, action_dim, path)
        sizes = Dimensions(obs, act, length or 0)
    report = check_jobs(project, items, slurm=slurm, sizes=sizes, slurm_needed=False)
    try:
        find_starts(project, items, sizes=sizes)
    except SpecError as error:
        found = tuple(problem_finding(problem, "start") for problem in error.problems)
        report = replace(report, findings=report.findings + found)
    plans = [JobPlan(item, changed) for item, changed in zip(items, differences(project, items), strict=True)]
    advice = lint(project, plans, "slurm" if slurm else "local", environments=sizes is None)
    warned = (*findings(items, find_blamed(project, items)), *(finding for finding, _ in advice))
    report = replace(report, findings=report.findings + warned)
    trial = report.trials.get(0)
    facts: dict[str, Any] = {"spec": str(path), "points": len(items)}
    if trial is not None:
        facts |= {
            "observation_dim": trial.sizes.observation,
            "action_dim": trial.sizes.action,
            "episode_length": trial.sizes.episode_length or None,
            "environment_steps": trial.environment_steps,
            "device": trial.device,
            "parameters": trial.parameters,
            "device_memory": {**asdict(trial.memory), "total": trial.memory.total},
        }
    return {**facts, "findings": [finding.as_dict() for finding in report.findings]}, report
