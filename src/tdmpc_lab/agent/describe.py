"""The architecture report: every part with its layers and parameter count, as the job log keeps it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from tdmpc_lab.agent.agent import discount_for
from tdmpc_lab.agent.planner import planner_iterations
from tdmpc_lab.agent.world_model import WorldModel, parameter_counts, q_function
from tdmpc_lab.config.schema import AgentConfig, PlannerConfig


@dataclass(frozen=True)
class Section:
    """One numbered part of the report."""

    number: str
    title: str
    purpose: str
    key: str  # in `parameter_counts`
    layers: str  # the module's own print-out, or a sentence


@dataclass(frozen=True)
class Architecture:
    """The whole report: `str()` gives the text, `as_dict()` the same facts for scripts."""

    sections: tuple[Section, ...]
    counts: dict[str, int]
    agent: AgentConfig
    planner: PlannerConfig
    observation_dim: int
    action_dim: int
    discount: float | None

    def __str__(self) -> str:
        lines = ["MODEL-BASED RL COMPONENTS:", ""]
        for s in self.sections:
            lines += [f"{s.number}. {s.title}:", f"   {s.purpose}", s.layers]
            lines += [f"   Trainable Parameters: {self.counts[s.key]:,}", ""]
        parts = " + ".join(["Encoder", "Dynamics", "Reward", *(["Termination"] if self.agent.termination else []), "Q"])
        lines += [
            "PARAMETER SUMMARY:",
            f"  World Model ({parts}): {self.counts['world_model']:,}",
            f"  Policy Network: {self.counts['policy']:,}",
            f"  Target Q Network: {self.counts['q_target']:,}",
            f"  TOTAL TRAINABLE PARAMETERS: {self.counts['total']:,}",
            "",
            "OPTIMIZERS:",
            f"  World Model + Q Optimizer: Adam (LR: {self.agent.lr:g})",
            f"  Encoder: Adam (LR: {self.encoder_lr:g}, in the world model's optimizer)",
            f"  Policy Optimizer: Adam (LR: {self.agent.lr:g})",
            "",
            "MPC PLANNER:",
            "  Type: MPPI (Model Predictive Path Integral)",
            f"  Horizon: {self.agent.horizon}",
            f"  Samples per iteration: {self.planner.samples}",
            f"  Planning iterations: {planner_iterations(self.planner, self.action_dim)}",
            f"  Temperature: {self.planner.temperature:g}",
        ]
        return "\n".join(lines)

    @property
    def encoder_lr(self) -> float:
        """The encoder's own learning rate."""
        return self.agent.lr * self.agent.encoder_lr_scale

    def as_dict(self) -> dict[str, Any]:
        """The report as plain data."""
        return {
            "observation_dim": self.observation_dim,
            "action_dim": self.action_dim,
            "parts": [
                {"number": s.number, "title": s.title, "layers": s.layers, "parameters": self.counts[s.key]}
                for s in self.sections
            ],
            "parameters": self.counts,
            "optimizers": {
                "world_model_lr": self.agent.lr,
                "encoder_lr": self.encoder_lr,
                "policy_lr": self.agent.lr,
            },
            "planner": {
                "type": "MPPI",
                "horizon": self.agent.horizon,
                "samples": self.planner.samples,
                "iterations": planner_iterations(self.planner, self.action_dim),
                "elites": self.planner.elites,
                "policy_trajectories": self.planner.policy_trajectories,
                "temperature": self.planner.temperature,
            },
            "discount": self.discount,
            "precision": self.agent.precision,
        }


def describe(
    observation_dim: int,
    action_dim: int,
    agent: AgentConfig,
    planner: PlannerConfig,
    *,
    episode_length: int | None = None,
) -> Architecture:
    """The architecture at the given sizes. Nothing is allocated: the networks are built on torch's meta device."""
    with torch.device("meta"):
        model = WorldModel(observation_dim, action_dim, agent)
        ensemble = QEnsembleListing([q_function(action_dim, agent) for _ in range(agent.q_heads)])
    ensemble_listing = _listing(ensemble).replace(type(ensemble).__name__, "QEnsemble", 1)
    sections = (
        Section(
            "1",
            "ENCODER NETWORK",
            "Maps observations to latent state representations",
            "encoder",
            _listing(model.encoder),
        ),
        Section(
            "2",
            "DYNAMICS MODEL",
            "Predicts next latent state given current state and action",
            "dynamics",
            _listing(model.dynamics),
        ),
        Section(
            "3",
            "REWARD MODEL",
            "Predicts reward given latent state and action",
            "reward",
            _listing(model.reward),
        ),
        *_termination(model),
        Section("4", "Q ENSEMBLE", f"{agent.q_heads} Q-networks for value estimation", "q", ensemble_listing),
        Section(
            "5",
            "TARGET Q ENSEMBLE",
            "Target network for stable Q-learning",
            "q_target",
            "   Same architecture as Q Ensemble",
        ),
        Section(
            "6",
            "POLICY NETWORK",
            "Learns to mimic the MPC planner for fast inference",
            "policy",
            _listing(model.policy),
        ),
    )
    discount = agent.discount
    if discount is None and episode_length is not None:
        discount = discount_for(episode_length)
    return Architecture(sections, parameter_counts(model), agent, planner, observation_dim, action_dim, discount)


def _termination(model: WorldModel) -> list[Section]:
    if model.termination is None:
        return []
    purpose = "Predicts termination probability given latent state"
    return [Section("3a", "TERMINATION MODEL", purpose, "termination", _listing(model.termination))]


def _listing(module: nn.Module) -> str:
    """The module's print-out, the same under every version of torch: newer ones say more about a LayerNorm."""
    return re.sub(r"(LayerNorm\(.*elementwise_affine=True).*\)", r"\1)", str(module))


class QEnsembleListing(nn.Module):
    """The ensemble's heads as separate modules, for printing: in use they are stacked into batched tensors."""

    def __init__(self, functions: Sequence[nn.Module]) -> None:
        super().__init__()
        self.q_functions = nn.ModuleList(functions)
