"""Latency of one plan and one update at full size, on random data, and what the machine's products reach at most.

Floating-point operations are those of the matrix products alone, a multiplication and an addition counted as two.

With w(part) the weights of a part's Linears (biases left out) a row through it takes 2·w operations, its gradient by
the input as many again, and so does its gradient by the weights.

    plan    2·E·( I·D·(H·(w(dynamics) + w(reward) + w(termination)) − 2·L·U)  drawn sequences; the start passes the
                                                                              two first layers once, not D times
                + I·S·(w(policy) + 2·w(one Q head))                           terminal values
                + P·H·(w(policy) + w(dynamics) + w(reward) + w(termination))) the policy's own sequences, once
    update  2·B·( W·(w(encoder) + w(policy) + 2·w(one Q head))                targets, forward
                + 3·(w(encoder) + H·(w(dynamics) + w(reward) + w(termination) + N·w(one Q head)))
                + (H + 1)·(3·w(policy) + 2·2·w(one Q head)))                  policy; no gradient by the heads' weights

E environments, I iterations, S samples, P of them the policy's, D = S − P, H horizon, W = H + td_steps − 1, L latent,
U hidden, B batch, N heads. Without a termination head w(termination) is 0; with pessimism all heads are valued, not 2.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Generator, Tensor

from tdmpc_lab.agent.agent import Agent
from tdmpc_lab.agent.planner import planner_iterations
from tdmpc_lab.agent.replay import Batch
from tdmpc_lab.agent.world_model import parameter_counts
from tdmpc_lab.config.schema import AgentConfig, PlannerConfig

CEILING_SIZE = {"cpu": 1536, "cuda": 8192}  # rows and columns: large enough that only the processor counts
CEILING_ROUNDS = 4  # at least, and the first is a warm-up


@dataclass(frozen=True)
class BenchResult:
    """Milliseconds per call: median, fastest and slowest of `repeats`, planning and updating by turns."""

    plan_ms: float
    plan_ms_min: float
    plan_ms_max: float
    update_ms: float
    update_ms_min: float
    update_ms_max: float
    repeats: int
    envs: int
    batch_size: int
    horizon: int
    device: str
    gpu: str | None
    threads: int
    torch: str
    kernels: str
    parameters: int
    precision: str
    """Type of torch's products."""
    precision_reason: str
    plan_flops: int
    """Of the matrix products, see `tdmpc_lab.agent.bench`."""
    update_flops: int
    ceiling_gflops: dict[str, float]
    """What large products reached between these calls, by type: see `Ceiling`."""

    @property
    def products(self) -> str:
        """Type of the products that were computed: native kernels have but one."""
        return _products(self.kernels, self.precision)

    @property
    def plan_gflops(self) -> float:
        """Billions of operations per second, by the median."""
        return self.plan_flops / self.plan_ms / 1e6

    @property
    def update_gflops(self) -> float:
        """Billions of operations per second, by the median."""
        return self.update_flops / self.update_ms / 1e6

    def as_dict(self) -> dict[str, Any]:
        """For scripts."""
        return asdict(self) | {"plan_gflops": self.plan_gflops, "update_gflops": self.update_gflops}


def bench(
    observation_dim: int,
    action_dim: int,
    agent: AgentConfig,
    planner: PlannerConfig,
    *,
    batch_size: int,
    envs: int = 1,
    device: str = "auto",
    repeats: int = 10,
    warm_up: int = 4,
    ceiling: bool = False,
) -> BenchResult:
    """Time `repeats` plans for `envs` environments and as many updates, after `warm_up` unmeasured ones of each.

    Of the unmeasured ones the last capture CUDA graphs, where there are any. With `ceiling` large products are timed
    by turns with them, so that all find the machine equally busy.

    Raises:
        ConfigError, ExternalError: as `Agent`.
    """
    subject = Agent(observation_dim, action_dim, agent=agent, planner=planner, device=device)
    perturb_heads(subject)
    batch = random_batch(observation_dim, action_dim, agent, batch_size, subject.device)
    observations = np.random.default_rng(0).normal(size=(envs, observation_dim)).astype(np.float32)
    state = subject.plan_state(envs, seed=0)
    plans, updates = [], []
    types = {"float32", _products(str(subject.kernels), subject.precision.name)} if ceiling else set()
    large = [Ceiling(subject.device, name) for name in sorted(types)]
    rounds = warm_up + repeats
    for i in range(rounds):
        if i % max(1, rounds // CEILING_ROUNDS) == 0:
            for one in large:
                one.measure()
        plan_ms = _timed(lambda: subject.act(observations, state, explore=True), subject.device)
        update_ms = _timed(lambda: subject.update(batch), subject.device)
        if i >= warm_up:
            plans.append(plan_ms)
            updates.append(update_ms)
    return BenchResult(
        plan_ms=statistics.median(plans),
        plan_ms_min=min(plans),
        plan_ms_max=max(plans),
        update_ms=statistics.median(updates),
        update_ms_min=min(updates),
        update_ms_max=max(updates),
        repeats=repeats,
        envs=envs,
        batch_size=batch_size,
        horizon=agent.horizon,
        device=str(subject.device),
        gpu=torch.cuda.get_device_name(subject.device) if subject.device.type == "cuda" else None,
        threads=torch.get_num_threads(),
        torch=str(torch.__version__),
        kernels=str(subject.kernels),
        parameters=parameter_counts(subject.model)["total"],
        precision=subject.precision.name,
        precision_reason=str(subject.precision),
        plan_flops=plan_flops(
            observation_dim,
            action_dim,
            agent,
            planner,
            envs=envs,
            iterations=planner_iterations(planner, action_dim),
        ),
        update_flops=update_flops(observation_dim, action_dim, agent, batch_size=batch_size),
        ceiling_gflops={one.precision: one.gflops for one in large},
    )


def _products(kernels: str, precision: str) -> str:
    return "bfloat16" if kernels.startswith("native") else precision


class Ceiling:
    """Billions of operations per second of one large matrix product in `float32` and the like: the fastest of a few."""

    @torch.inference_mode()
    def __init__(self, device: torch.device, precision: str) -> None:
        self.precision = precision
        self._device = device
        self._size = CEILING_SIZE[device.type]
        kind = getattr(torch, precision)
        self._a, self._b = (torch.randn(self._size, self._size, device=device).to(kind) for _ in range(2))
        self._times: list[float] = []

    @torch.inference_mode()
    def measure(self) -> None:
        """One product more; the first is a warm-up."""
        self._times.append(_timed(lambda: self._a @ self._b, self._device))

    @property
    def gflops(self) -> float:
        """The fastest so far."""
        return 2 * self._size**3 / min(self._times[1:]) / 1e6


def random_batch(observation_dim: int, action_dim: int, config: AgentConfig, size: int, device: torch.device) -> Batch:
    """A batch of noise of the right shapes, with what the agent's losses need."""
    generator = Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator).to(device)

    steps = config.horizon + config.td_steps - 1
    zeros = torch.zeros(steps, size, device=device)
    actions = normal(steps, size, action_dim).clamp(-1, 1)
    planned = config.policy_prior != "value"
    return Batch(
        observations=normal(steps + 1, size, observation_dim),
        actions=actions,
        rewards=normal(steps, size),
        terminated=zeros,
        truncated=zeros,
        valid=torch.ones_like(zeros) if steps > config.horizon else None,
        random=zeros if planned else None,
        plan_mean=actions if planned else None,
        plan_std=torch.ones_like(actions) if planned else None,
    )


@torch.no_grad()
def perturb_heads(agent: Agent) -> None:
    """Give the heads' last layers random weights: at their zero start they rank all sequences alike."""
    generator = Generator(agent.device).manual_seed(0)
    for weight in (
        agent.model.reward.net[-1].weight,
        agent.model.q.weights[-1],
        agent.model.q_target.weights[-1],
    ):
        weight.normal_(0.0, 0.05, generator=generator)  # type: ignore[operator]


def _timed(call: Callable[[], object], device: torch.device) -> float:
    """Milliseconds of one call, the device's work included."""
    start = time.perf_counter()
    call()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return 1000 * (time.perf_counter() - start)


def linear_weights(observation_dim: int, action_dim: int, agent: AgentConfig) -> dict[str, int]:
    """Weights of the Linears by part; `q` is one head."""
    hidden = [agent.hidden_dim] * agent.hidden_layers
    latent, both = agent.latent_dim, agent.latent_dim + action_dim
    widths = {
        "encoder": [observation_dim, *hidden, latent],
        "dynamics": [both, *hidden, latent],
        "reward": [both, *hidden, agent.bins],
        "termination": [latent, agent.termination_dim, agent.termination_dim, 1] if agent.termination else [],
        "q": [both, *hidden, agent.bins],
        "policy": [latent, *hidden, 2 * action_dim],
    }
    return {part: sum(a * b for a, b in pairwise(sizes)) for part, sizes in widths.items()}


def plan_flops(
    observation_dim: int, action_dim: int, agent: AgentConfig, planner: PlannerConfig, *, envs: int, iterations: int
) -> int:
    """Of one plan for `envs` environments; `iterations` as in force (`planner_iterations`)."""
    w = linear_weights(observation_dim, action_dim, agent)
    step = w["dynamics"] + w["reward"] + w["termination"]
    proposed = planner.policy_trajectories
    drawn = planner.samples - proposed
    rolled = iterations * drawn * (agent.horizon * step - 2 * agent.latent_dim * agent.hidden_dim)
    valued = agent.q_heads if planner.pessimism > 0 else 2
    terminal = iterations * planner.samples * (w["policy"] + valued * w["q"])
    return 2 * envs * (rolled + terminal + proposed * agent.horizon * (w["policy"] + step))


def update_flops(observation_dim: int, action_dim: int, agent: AgentConfig, *, batch_size: int) -> int:
    """Of one update."""
    w, horizon = linear_weights(observation_dim, action_dim, agent), agent.horizon
    targets = (horizon + agent.td_steps - 1) * (w["encoder"] + w["policy"] + 2 * w["q"])
    per_step = w["dynamics"] + w["reward"] + w["termination"] + agent.q_heads * w["q"]
    model = 3 * (w["encoder"] + horizon * per_step)
    policy = (horizon + 1) * (3 * w["policy"] + 4 * w["q"])
    return 2 * batch_size * (targets + model + policy)
