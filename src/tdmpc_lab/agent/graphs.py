"""Whether plans and updates may be captured in CUDA graphs here: found out in a process of its own.

A capture that torch, the driver or the GPU does not bear ends that process and no job. `good` is kept beside the
compiled kernels, by GPU, torch and the sources; everything else is asked again by the next job.

python -m tdmpc_lab.agent.graphs DEVICE
"""

from __future__ import annotations

import functools
import hashlib
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from tdmpc_lab.agent.child import ask
from tdmpc_lab.agent.native.build import UnavailableError, cache_folder, write_whole
from tdmpc_lab.agent.precision import ChosenPrecision

if TYPE_CHECKING:
    from tdmpc_lab.agent.agent import Agent

GOOD = "good"
KEPT = "tested.json"
LARGEST_ERROR = 0.1  # of how far the weights moved; the same kernels on the same numbers give next to 0
UPDATES = 8
PLANS = 4
COMPARED = ChosenPrecision("float32", "for a comparison")
"""What plans are compared in: filled up, a batch has other products, and where those round to bfloat16 another sequence
becomes an elite now and then, and the action is another one."""


@functools.cache
def verdict(device: str) -> str:
    """`good`, or why it is not. Asked once by a process."""
    try:
        kept = cache_folder(f"graphs-{_key(device)}") / KEPT
    except UnavailableError:
        return ask(__name__, device)
    if kept.is_file():
        return GOOD
    said = ask(__name__, device)
    if said == GOOD:
        try:
            write_whole(kept, json.dumps({"said": said}).encode())
        except OSError as error:  # asked again the next time
            print(f"warning: {kept} could not be written: {error}", file=sys.stderr)
    return said


def _key(device: str) -> str:
    """Names one state of the sources, torch and kind of GPU."""
    sources = [path.read_text(encoding="utf-8") for path in sorted(Path(__file__).parent.glob("*.py"))]
    state = [*sources, str(torch.__version__), str(torch.version.cuda), torch.cuda.get_device_name(device)]
    return hashlib.sha256(json.dumps(state).encode()).hexdigest()[:20]


def compare(device: str) -> str:
    """`good`, or what two agents disagree on, one of which plans and learns through captures."""
    from tdmpc_lab.agent.agent import Agent
    from tdmpc_lab.agent.bench import perturb_heads, random_batch
    from tdmpc_lab.agent.native.choose import Kernels
    from tdmpc_lab.config.schema import AgentConfig, PlannerConfig

    config = AgentConfig(latent_dim=64, hidden_dim=64, hidden_layers=2, termination_dim=32, horizon=3, lr=1e-3)
    planner = PlannerConfig(samples=64, iterations=3, elites=8, policy_trajectories=8)
    agents = []
    for captured in (False, True):
        agent = Agent(7, 3, agent=config, planner=planner, device=device)
        agent.kernels = Kernels("tested", captured=captured)
        perturb_heads(agent)
        agents.append(agent)
    batch = random_batch(7, 3, config, 64, agents[0].device)
    starts = [_weights(agent) for agent in agents]
    for _ in range(UPDATES):
        for agent in agents:
            agent.update(batch)
    wanted, found = (_weights(agent) - start for agent, start in zip(agents, starts, strict=True))
    error = float(((found - wanted).norm() / wanted.norm()).nan_to_num(nan=torch.inf))
    if not error < LARGEST_ERROR:
        return f"captured updates move the weights by {error:.3g} of their way elsewhere"
    for weights, source in zip(agents[1].model.parameters(), agents[0].model.parameters(), strict=True):
        with torch.no_grad():
            weights.copy_(source)  # so that the plans are of the same model
    observations = np.random.default_rng(0).normal(size=(3, 7)).astype(np.float32)  # one place is filled up
    own = agents[1].act(observations, agents[1].plan_state(3, seed=1), explore=True)
    if not np.isfinite(own).all():
        return f"captured plans in {agents[1].precision.name} act by numbers that are none"
    for agent in agents:
        agent.use_precision(COMPARED)
    states = [agent.plan_state(3, seed=1) for agent in agents]
    for _ in range(PLANS):
        wanted_action, found_action = (
            agent.act(observations, state, explore=True) for agent, state in zip(agents, states, strict=True)
        )
        off = float(np.abs(found_action - wanted_action).max())
        if not off < LARGEST_ERROR:
            return f"captured plans act {off:.3g} elsewhere"
    return GOOD


def _weights(agent: Agent) -> Tensor:
    """All of them, flat, on the CPU."""
    return torch.cat([p.detach().flatten().cpu() for p in agent.model.parameters()])


if __name__ == "__main__":
    print(compare(sys.argv[1]))
