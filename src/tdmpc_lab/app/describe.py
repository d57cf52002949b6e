"""`describe`, `check` and `bench`: looking at a spec's agent without training it."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tdmpc_lab.app.opponents import stand_in
from tdmpc_lab.app.specs import check_environments, find_spec, resolve_dimensions
from tdmpc_lab.config.loader import load_spec, load_sweep
from tdmpc_lab.config.schema import Spec
from tdmpc_lab.jobs.paths import Project

if TYPE_CHECKING:
    from tdmpc_lab.agent.bench import BenchResult
    from tdmpc_lab.agent.describe import Architecture

CHECK_BATCH = 16
CHECK_SAMPLES = 64


def _load_one(path: Path, overrides: Sequence[str]) -> Spec:
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
    spec = _load_one(path, overrides)
    obs, act, length = resolve_dimensions(spec, observation_dim, action_dim, path)
    from tdmpc_lab.agent.describe import describe

    return describe(obs, act, spec.agent, spec.planner, episode_length=length)


def check_spec(
    project: Project,
    spec_file: str,
    overrides: Sequence[str],
    observation_dim: int | None,
    action_dim: int | None,
) -> dict[str, Any]:
    """Validate a spec, make and step its environment, and run one plan and one update of its full-size agent.

    Of a sweep every point is validated, and made its environment; the agent is that of the first point.
    The batch and the number of samples are reduced, so that it takes seconds. With the two sizes given, the
    environment is left out. Raises whatever is wrong.
    """
    path = find_spec(project, spec_file)
    points = load_sweep(path, overrides)
    spec = points[0].spec
    if observation_dim is None:
        check_environments(project, points)
    obs, act, length = resolve_dimensions(spec, observation_dim, action_dim, path)
    stepped = None
    if observation_dim is None:
        from tdmpc_lab.training.build import step_environment

        stepped = step_environment(
            spec, steps=min(10, length or 10), find_opponent=lambda name: stand_in(project, name)
        )
    from tdmpc_lab.agent.bench import bench

    samples = min(CHECK_SAMPLES, spec.planner.samples)
    proposals = min(spec.planner.policy_trajectories, samples - 1)
    small = replace(
        spec.planner, samples=samples, elites=min(spec.planner.elites, samples), policy_trajectories=proposals
    )
    result = bench(
        obs,
        act,
        spec.agent,
        small,
        batch_size=min(CHECK_BATCH, spec.train.batch_size),
        device=spec.train.device,
        repeats=1,
        warm_up=0,
    )
    return {
        "spec": str(path),
        "points": len(points),
        "observation_dim": obs,
        "action_dim": act,
        "episode_length": length,
        "environment_steps": stepped,
        "device": result.device,
        "parameters": result.parameters,
    }


def bench_spec(
    project: Project,
    spec_file: str,
    overrides: Sequence[str],
    observation_dim: int | None,
    action_dim: int | None,
    *,
    repeats: int,
) -> BenchResult:
    """Latency of one plan and one update at the spec's full size. Raises as `describe_spec`."""
    path = find_spec(project, spec_file)
    spec = _load_one(path, overrides)
    obs, act, _ = resolve_dimensions(spec, observation_dim, action_dim, path)
    from tdmpc_lab.agent.bench import bench

    _set_threads(spec)
    return bench(
        obs,
        act,
        spec.agent,
        spec.planner,
        batch_size=spec.train.batch_size,
        envs=spec.train.envs,
        device=spec.train.device,
        repeats=repeats,
    )


def _set_threads(spec: Spec) -> None:
    from tdmpc_lab.training.build import set_threads

    set_threads(spec.train)
