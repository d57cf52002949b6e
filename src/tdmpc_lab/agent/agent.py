"""The agent: world model, planner and learner behind three calls, `act`, `update` and `state_dict`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator, Tensor

from tdmpc_lab.agent.captured_update import CapturedUpdate
from tdmpc_lab.agent.device import ChosenPrecision, choose_precision, machine, resolve_device
from tdmpc_lab.agent.learner import Learner, Mirror
from tdmpc_lab.agent.native.choose import Kernels, choose, make_nets, make_rollouts
from tdmpc_lab.agent.planner import MPPI
from tdmpc_lab.agent.replay import Batch
from tdmpc_lab.agent.rollouts import Rollouts
from tdmpc_lab.agent.training_model import TrainingModel
from tdmpc_lab.agent.world_model import WorldModel
from tdmpc_lab.config.rules import check_agent
from tdmpc_lab.config.schema import AgentConfig, PlannerConfig
from tdmpc_lab.errors import CheckpointError

DISCOUNT_MIN, DISCOUNT_MAX = 0.95, 0.995


def discount_for(episode_length: int) -> float:
    """γ = clip((T/5 − 1)/(T/5), 0.95, 0.995) for an episode of T steps (TD-MPC2's heuristic)."""
    fifth = episode_length / 5
    return float(min(max((fifth - 1) / fifth, DISCOUNT_MIN), DISCOUNT_MAX))


@dataclass
class PlanState:
    """What planning carries from step to step for a group of E environments: warm start and random draws."""

    mean: Tensor  # (E, H, A), zeros where an episode starts
    std: Tensor  # (E, A) of the last plan's first action; beside its mean what the policy may learn from
    generator: Generator
    nan_values: Tensor  # () NaN value estimates so far

    def start_episode(self, env: int) -> None:
        """Forget environment `env`'s last plan: its next observation opens an episode."""
        self.mean[env] = 0.0


class Agent:
    """A TD-MPC2 agent for observations (O,) and actions (A,) in [−1, 1].

    Args:
        observation_dim, action_dim: O and A.
        episode_length: steps of an episode, for the default discount; not needed when `agent.discount` is set.
        agent, planner: settings; the defaults are the reference agent.
        seed: fixes the weights and every random draw of learning.
        device: `auto | cpu | cuda | cuda:N`.
        mirror: signs (O,) and (A,) of observation and action under a symmetry of the task, by which batches are then
            mirrored; None to leave them.

    Raises:
        ConfigError: settings that do not fit together, or an unknown device name.
        ExternalError: the device is not there.
    """

    def __init__(
        self,
        observation_dim: int,
        action_dim: int,
        *,
        episode_length: int = 1000,
        agent: AgentConfig | None = None,
        planner: PlannerConfig | None = None,
        seed: int = 1,
        device: str | torch.device = "auto",
        mirror: tuple[Sequence[float], Sequence[float]] | None = None,
    ) -> None:
        agent = AgentConfig() if agent is None else agent
        planner = PlannerConfig() if planner is None else planner
        check_agent(agent, planner)
        self.config = agent
        self.device = device if isinstance(device, torch.device) else resolve_device(device)
        self.discount = discount_for(episode_length) if agent.discount is None else agent.discount
        self.model = WorldModel(observation_dim, action_dim, agent, seed=seed).to(self.device)
        self.planner = MPPI(planner, horizon=agent.horizon, discount=self.discount)
        self.generator = Generator(self.device).manual_seed(seed)
        signs = None if mirror is None else Mirror(*(torch.tensor(s, device=self.device) for s in mirror))
        self.learner = Learner(self.model, agent, discount=self.discount, generator=self.generator, mirror=signs)
        self.use_precision(choose_precision(agent.precision, self.device, agent.hidden_dim))

    def use_precision(self, precision: ChosenPrecision) -> None:
        """Plan and update with products in this type from now on."""
        self.precision = precision
        self.__dict__.pop("rollouts", None)  # made anew at the next plan
        self.__dict__.pop("nets", None)  # and at the next update
        self.__dict__.pop("_captured", None)

    @cached_property
    def kernels(self) -> Kernels:
        """What this agent plans and learns with, and why. The first use may take a while: kernels are compiled then."""
        return choose(self.config, self.device)

    @cached_property
    def rollouts(self) -> Rollouts:
        """The model as the planner sees it."""
        return make_rollouts(
            self.kernels,
            self.model,
            horizon=self.config.horizon,
            discount=self.discount,
            dtype=self.precision.planning,
            pessimism=self.planner.config.pessimism,
        )

    @cached_property
    def nets(self) -> TrainingModel:
        """The networks as an update computes them."""
        return make_nets(self.kernels, self.model, self.precision.updating)

    @cached_property
    def _captured(self) -> CapturedUpdate:
        return CapturedUpdate(self.learner)

    def plan_state(self, envs: int, *, seed: int) -> PlanState:
        """A fresh planning state for `envs` environments, with random draws of its own."""
        mean = torch.zeros(envs, self.config.horizon, self.model.action_dim, device=self.device)
        std = torch.zeros(envs, self.model.action_dim, device=self.device)
        generator = Generator(self.device).manual_seed(seed)
        return PlanState(mean, std, generator, torch.zeros((), dtype=torch.long, device=self.device))

    def act(
        self,
        observations: NDArray[np.float32],
        state: PlanState,
        *,
        explore: bool,
        envs: NDArray[np.int64] | None = None,
    ) -> NDArray[np.float32]:
        """Plan one action for each observation (k, O) in one batched call: (k, A) in [−1, 1].

        Args:
            envs: which environments of `state` the k rows belong to; the first k when None.
            explore: add the planner's noise (training); without it, act as in evaluation.
        """
        rows = torch.arange(len(observations)) if envs is None else torch.from_numpy(envs)
        rows = rows.to(self.device)
        with torch.inference_mode():
            z = self.model.encoder(torch.from_numpy(observations).to(self.device))
            plan = self.planner.plan(
                self.rollouts,
                z,
                state.mean[rows],
                explore=explore,
                generator=state.generator,
                captured=self.kernels.captured,
            )
            state.mean[rows] = plan.mean
            state.std[rows] = plan.std[:, 0]
            state.nan_values += plan.nan_values.sum()
        return plan.action.cpu().numpy()

    @torch.no_grad()
    def act_prior(self, observations: NDArray[np.float32]) -> NDArray[np.float32]:
        """The policy prior's own action (its mean) for each observation (k, O), without planning: (k, A)."""
        z = self.model.encoder(torch.from_numpy(observations).to(self.device))
        mean, _ = self.model.policy(z)
        return torch.tanh(mean).cpu().numpy()

    def update(self, batch: Batch) -> dict[str, Tensor]:
        """One update from a batch; see `Learner.update`."""
        if self.learner.nets is not self.nets:
            self.learner.nets = self.nets
        return self._captured(batch) if self.kernels.captured else self.learner.update(batch)

    def state_dict(self) -> dict[str, Any]:
        """Networks, target, optimizers, running scale and random state: enough to continue training."""
        return {
            "model": self.model.state_dict(),
            "learner": self.learner.state_dict(),
            "generator": self.generator.get_state(),
            "precision": {"name": self.precision.name, "machine": machine(self.device)},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what `state_dict` gave; on the machine that it comes from also what `auto` had chosen there.

        Raises:
            CheckpointError: shapes or names differ; the message lists them.
        """
        self.load_weights(state)
        made = state.get("precision", {})  # checkpoints of older versions have none
        here = made.get("machine") == machine(self.device)
        if here and self.config.precision == "auto" and made["name"] != self.precision.name:
            self.use_precision(ChosenPrecision(made["name"], "as the checkpoint was made with on this machine"))
        self.learner.load_state_dict(state["learner"])
        self.__dict__.pop("_captured", None)  # it writes to what the optimizers kept before
        self.generator.set_state(state["generator"])

    def load_start(self, state: dict[str, Any]) -> bool:
        """Take over what a training of its own begins with: the networks and, where `state` holds them, the optimizers
        and the running scale; the random state stays. Returns whether it holds them.

        Raises:
            CheckpointError: as `load_weights`.
        """
        self.load_weights(state)
        if "learner" not in state:
            return False
        self.learner.load_state_dict(state["learner"])
        self.__dict__.pop("_captured", None)  # it writes to what the optimizers kept before
        return True

    def load_weights(self, state: dict[str, Any]) -> None:
        """Take over the networks alone, for evaluation.

        Raises:
            CheckpointError: shapes or names differ; the message lists them.
        """
        expected = {name: tuple(t.shape) for name, t in self.model.state_dict().items()}
        found = {name: tuple(t.shape) for name, t in state["model"].items()}
        differing = [
            f"{name}: {found.get(name, 'missing')} in the checkpoint, {expected.get(name, 'none')} in the spec"
            for name in sorted(expected.keys() | found.keys())
            if expected.get(name) != found.get(name)
        ]
        if differing:
            raise CheckpointError("the checkpoint does not fit the spec:\n  " + "\n  ".join(differing))
        self.model.load_state_dict(state["model"])
