"""`bench`: what a plan, an update and an environment step take here, how near that is to what the machine can do, and
how long the spec's training would take."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from tdmpc_lab.app.agents.describe import load_one
from tdmpc_lab.app.agents.opponents import stand_in
from tdmpc_lab.app.checks.estimate import run_seconds
from tdmpc_lab.app.submit.specs import find_spec, resolve_dimensions
from tdmpc_lab.config.schema import AgentConfig, PlannerConfig, Spec, TrainConfig
from tdmpc_lab.jobs.paths import Project
from tdmpc_lab.text import count, duration, number

if TYPE_CHECKING:
    from tdmpc_lab.agent.bench import BenchResult


REFERENCE_SIZES = (18, 4)  # observation and action of laser hockey
REFERENCE_BATCH = 256
REFERENCE_HORIZONS = (9, 3)
REFERENCE_REPEATS = 5
STEPS_TIMED = 500


@dataclass(frozen=True)
class Bench:
    """Everything that was measured."""

    spec: BenchResult | None
    """None where no spec was given."""
    reference: dict[int, BenchResult]
    """The reference agent by horizon; empty where it was left out."""
    ceiling_gflops: dict[str, float]
    """What a large product reaches, by type: the fastest of those between the other measurements."""
    steps_per_s: float | None
    """Of the environment alone, one copy, random actions; None where it was not made."""
    seconds: float | None
    """Predicted wall time of the spec's training."""

    @property
    def main(self) -> BenchResult:
        """The spec's own, else the reference agent's at its own horizon."""
        return self.spec or self.reference[REFERENCE_HORIZONS[0]]

    def share(self, gflops: float, of: BenchResult) -> float | None:
        """Of the ceiling of the type that its products are in; None where that was not measured: what is faster than
        it shows that the large products found the machine busy, or are slow on it."""
        share = gflops / self.ceiling_gflops[of.products]
        return share if share <= 1 else None

    def as_dict(self) -> dict[str, Any]:
        """For scripts: the spec's figures at the top, the reference agent's under `reference`."""
        return {
            **self._figures(self.main),
            "ceiling_gflops": self.ceiling_gflops,
            "env_steps_per_s": self.steps_per_s,
            "predicted_s": self.seconds,
            "reference": {f"horizon_{h}": self._figures(result) for h, result in self.reference.items()},
        }

    def _figures(self, result: BenchResult) -> dict[str, Any]:
        return result.as_dict() | {
            "plan_share_of_ceiling": self.share(result.plan_gflops, result),
            "update_share_of_ceiling": self.share(result.update_gflops, result),
        }

    def lines(self) -> list[str]:
        """For reading."""
        main = self.main
        found = [
            f"{main.parameters:,} parameters, horizon {main.horizon}, on {main.gpu or main.device}, "
            f"{count(main.threads, 'thread')}, torch {main.torch}",
            main.precision_reason,
            f"planning and updates by {main.kernels}",
            *self._timed(main),
        ]
        for horizon, result in self.reference.items():
            if result is not main:
                found += [
                    f"reference agent, horizon {horizon}; {result.precision_reason}; by {result.kernels}",
                    *self._timed(result),
                ]
        ceilings = ", ".join(f"{name} {number(value)}" for name, value in self.ceiling_gflops.items())
        found.append(f"large matrix products reach, in GFLOP/s: {ceilings}")
        results = [main, *self.reference.values()]
        shares = [self.share(rate, one) for one in results for rate in (one.plan_gflops, one.update_gflops)]
        if None in shares:
            found.append(
                "the ceiling was not measured: plans or updates were faster than large products beside them, because "
                "the machine is busy with something else or slow at these; try again when it is free"
            )
        if self.steps_per_s is not None:
            found.append(f"the environment alone: {number(self.steps_per_s)} steps/s")
        if self.seconds is not None:
            found.append(f"the whole training would take about {duration(self.seconds)} here")
        return found

    def _timed(self, result: BenchResult) -> list[str]:
        return [
            f"plan for {count(result.envs, 'environment')}: {result.plan_ms:.1f} ms "
            f"(median of {result.repeats}; {result.plan_ms_min:.1f} to {result.plan_ms_max:.1f}), "
            + self._rate(result.plan_gflops, result),
            f"update of {result.batch_size} sub-sequences: {result.update_ms:.1f} ms "
            f"(median of {result.repeats}; {result.update_ms_min:.1f} to {result.update_ms_max:.1f}), "
            + self._rate(result.update_gflops, result),
        ]

    def _rate(self, gflops: float, result: BenchResult) -> str:
        share = self.share(gflops, result)
        of = "share of the ceiling not measured, see below" if share is None else f"{share:.0%} of the ceiling"
        return f"{number(gflops)} GFLOP/s, {of}"


def run_bench(
    project: Project | None,
    spec_file: str | None,
    overrides: Sequence[str],
    observation_dim: int | None,
    action_dim: int | None,
    *,
    repeats: int,
    reference: bool,
) -> Bench:
    """Measure a spec's agent, the reference agent, or both, and the machine. Takes the spec's device and threads.

    Without a spec only the reference agent; no project is needed then. With the two sizes given, the environment is
    left out, and so is the prediction.

    Raises:
        SpecError, EnvironmentSpecError, UsageError: as `describe`.
        ExternalError: the device is not there.
    """
    from tdmpc_lab.training.build import set_threads

    own = rate = seconds = None
    train = TrainConfig()
    if project is None or spec_file is None:
        set_threads(train)
    else:
        path = find_spec(project, spec_file)
        spec = load_one(path, overrides)
        train = spec.train
        set_threads(train)
        obs, act, length = resolve_dimensions(spec, observation_dim, action_dim, path)
        own = _measure(obs, act, spec.agent, spec.planner, train, repeats)
        if observation_dim is None and action_dim is None:
            rate = _environment_rate(project, spec)
            seconds = run_seconds(spec, own.plan_ms, own.update_ms, 1000 / rate, length or 0)
    found = {}
    if reference or own is None:
        alone = replace(train, envs=1, batch_size=REFERENCE_BATCH)
        for horizon in REFERENCE_HORIZONS:
            agent = AgentConfig(horizon=horizon, discount=0.99)
            found[horizon] = _measure(*REFERENCE_SIZES, agent, PlannerConfig(), alone, min(repeats, REFERENCE_REPEATS))
    ceilings: dict[str, float] = {}
    for result in (own, *found.values()):
        for name, gflops in () if result is None else sorted(result.ceiling_gflops.items(), reverse=True):
            ceilings[name] = max(gflops, ceilings.get(name, 0.0))
    return Bench(own, found, ceilings, rate, seconds)


def _measure(
    observation_dim: int, action_dim: int, agent: AgentConfig, planner: PlannerConfig, train: TrainConfig, repeats: int
) -> BenchResult:
    from tdmpc_lab.agent.bench import bench

    return bench(
        observation_dim,
        action_dim,
        agent,
        planner,
        batch_size=train.batch_size,
        envs=train.envs,
        device=train.device,
        repeats=repeats,
        ceiling=True,
    )


def _environment_rate(project: Project, spec: Spec) -> float:
    """Steps per second of one environment under random actions, making and resetting it left out as far as it goes."""
    from tdmpc_lab.training.build import step_environment

    def seconds(steps: int) -> tuple[int, float]:
        start = time.perf_counter()
        taken = step_environment(spec, steps=steps, find_opponent=lambda name: stand_in(project, name))
        return taken, time.perf_counter() - start

    seconds(1)  # imports, and what the first environment of a process sets up
    _, making = seconds(1)
    taken, whole = seconds(STEPS_TIMED)
    return max(1, taken - 1) / max(whole - making, 1e-6)
