"""One row of the table of speeds: plan and update of one agent, call by call or captured, as JSON in a file.

python -m gpu_check.speed DEVICE AGENT HORIZON MODE SIZE FILE
"""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch

from tdmpc_lab.agent.bench import bench
from tdmpc_lab.agent.device import resolve_device
from tdmpc_lab.app.agents.bench import REFERENCE_BATCH, REFERENCE_SIZES
from tdmpc_lab.config.loader import load_spec
from tdmpc_lab.config.schema import AgentConfig, PlannerConfig, TrainConfig

ROOT = Path(__file__).resolve().parents[2]
GRAPHS: dict[str, Literal["never", "always"]] = {"eager": "never", "captured": "always"}
REPEATS = {"full": 10, "tiny": 2}


def row(device_name: str, name: str, horizon: int, mode: str, size: str) -> dict[str, Any]:
    """Figures of the agent called `name`: `reference`, or else a spec in `experiments/`."""
    if name == "reference":
        agent, planner = AgentConfig(discount=0.99), PlannerConfig()
        train = TrainConfig(envs=1, batch_size=REFERENCE_BATCH)
    else:
        spec = load_spec(ROOT / "experiments" / f"{name}.yaml").spec
        agent, planner, train = spec.agent, spec.planner, spec.train
    agent = replace(agent, horizon=horizon, cuda_graphs=GRAPHS[mode])
    if size == "tiny":  # for a test without a GPU
        agent = replace(agent, latent_dim=32, hidden_dim=32, termination_dim=16, kernels="torch")
        planner = replace(planner, samples=32, elites=8, policy_trajectories=4)
        train = replace(train, batch_size=16)
    device = resolve_device(device_name)
    on_gpu = device.type == "cuda"
    if on_gpu:
        torch.cuda.reset_peak_memory_stats(device)
    found = bench(
        *REFERENCE_SIZES,
        agent,
        planner,
        batch_size=train.batch_size,
        envs=train.envs,
        device=device_name,
        repeats=REPEATS[size],
    ).as_dict()
    memory = {"allocated": torch.cuda.max_memory_allocated, "reserved": torch.cuda.max_memory_reserved}
    peaks = {f"peak_{kind}_mib": round(ask(device) / 2**20, 1) if on_gpu else None for kind, ask in memory.items()}
    capability = torch.cuda.get_device_capability(device) if on_gpu else None
    return {
        "agent": name,
        "mode": mode,
        **found,
        **peaks,
        "capability": f"{capability[0]}.{capability[1]}" if capability is not None else None,
    }


if __name__ == "__main__":
    device_given, name_given, horizon_given, mode_given, size_given, file = sys.argv[1:]
    Path(file).write_text(json.dumps(row(device_given, name_given, int(horizon_given), mode_given, size_given)))
