"""A spec's environment and agent tried for a moment, without training; specs that are alike share one try."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING

from tdmpc_lab.app.agents.opponents import stand_in
from tdmpc_lab.app.submit.specs import Dimensions, environment_dimensions
from tdmpc_lab.config.schema import PlannerConfig, Spec
from tdmpc_lab.errors import LabError
from tdmpc_lab.jobs.paths import Project

if TYPE_CHECKING:
    from tdmpc_lab.agent.memory import DeviceMemory


BATCH = 16
SAMPLES = 64
STEPS = 10


@dataclass(frozen=True)
class Trial:
    """What was learned of a spec."""

    sizes: Dimensions
    environment_steps: int | None
    """Steps taken; None where the sizes were given instead."""
    device: str
    parameters: int
    memory: DeviceMemory
    """Of the training at full size."""


class Trials:
    """Tries specs one by one and remembers what has been tried.

    Args:
        device: where the agents are tried; None for the device that each spec names.
        sizes: of observation and action, instead of making the environment.
    """

    def __init__(self, project: Project, device: str | None = None, sizes: Dimensions | None = None) -> None:
        self.project = project
        self.device = device
        self.sizes = sizes
        self._tried: dict[Hashable, object] = {}

    def of(self, spec: Spec) -> Trial:
        """Step the environment, build the agent at full size, run one plan and one update at a reduced batch.

        Raises:
            LabError: whatever is wrong; the same for every spec that is alike.
        """
        sizes, steps = self._environment(spec)
        device, parameters, q = self._agent(spec, sizes)
        from tdmpc_lab.agent.memory import device_memory

        memory = device_memory(
            parameters,
            q,
            sizes.action,
            spec.agent,
            spec.planner,
            batch_size=spec.train.batch_size,
            envs=spec.train.envs,
        )
        return Trial(sizes, steps, device, parameters, memory)

    def _environment(self, spec: Spec) -> tuple[Dimensions, int | None]:
        if self.sizes is not None:
            return self.sizes, None
        key = ("environment", repr(spec.env), spec.train.mirror)
        if key not in self._tried:
            self._tried[key] = self._outcome(lambda: (environment_dimensions(spec.env), self._step(spec)))
        return self._result(key)  # type: ignore[return-value]

    def _step(self, spec: Spec) -> int:
        from tdmpc_lab.training.build import step_environment

        return step_environment(spec, steps=STEPS, find_opponent=lambda name: stand_in(self.project, name))

    def _agent(self, spec: Spec, sizes: Dimensions) -> tuple[str, int, int]:
        # Learning rates and the like have their ranges; it is the sizes that a try tells something of.
        shape = tuple(v for f in fields(spec.agent) if not isinstance(v := getattr(spec.agent, f.name), float))
        small, batch = reduced(spec.planner), min(BATCH, spec.train.batch_size)
        device = self.device or spec.train.device
        key = ("agent", sizes.observation, sizes.action, shape, small, batch, device)
        if key not in self._tried:
            self._tried[key] = self._outcome(lambda: _try_agent(spec, sizes, small, batch, device))
        return self._result(key)  # type: ignore[return-value]

    @staticmethod
    def _outcome(call: object) -> object:
        try:
            return call()  # type: ignore[operator]
        except LabError as error:
            return error

    def _result(self, key: Hashable) -> object:
        found = self._tried[key]
        if isinstance(found, LabError):
            raise found
        return found


def reduced(planner: PlannerConfig) -> PlannerConfig:
    """The planner with so few samples that a plan takes a moment."""
    samples = min(SAMPLES, planner.samples)
    proposals = min(planner.policy_trajectories, samples - 1)
    return replace(planner, samples=samples, elites=min(planner.elites, samples), policy_trajectories=proposals)


def _try_agent(spec: Spec, sizes: Dimensions, small: PlannerConfig, batch: int, device: str) -> tuple[str, int, int]:
    """The device it ran on, its trainable parameters, and those of its Q ensemble."""
    from tdmpc_lab.agent.bench import bench
    from tdmpc_lab.agent.describe import describe

    result = bench(
        sizes.observation, sizes.action, spec.agent, small, batch_size=batch, device=device, repeats=1, warm_up=0
    )
    counts = describe(sizes.observation, sizes.action, spec.agent, small).counts
    return result.device, result.parameters, counts["q"]
