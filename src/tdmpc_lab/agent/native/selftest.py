"""Do the kernels give here what torch gives? Asked once for each way of multiplying, in a process of its own.

An instruction that the machine does not have after all ends that process and no job. The answer is kept beside the
library.

python -m tdmpc_lab.agent.native.selftest LIBRARY BACKEND
"""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from torch import Generator, Tensor, nn

from tdmpc_lab.agent.child import ask
from tdmpc_lab.agent.clipped_step import ClippedStep
from tdmpc_lab.agent.native.build import write_whole
from tdmpc_lab.agent.native.learning import NativeClippedStep
from tdmpc_lab.agent.native.library import BACKENDS, Backend, Library
from tdmpc_lab.agent.native.rollouts import NativeRollouts
from tdmpc_lab.agent.native.training import NativeTrainingModel
from tdmpc_lab.agent.networks import dropped_entries
from tdmpc_lab.agent.rollouts import ModelRollouts, Rollouts
from tdmpc_lab.agent.training_model import TrainingModel
from tdmpc_lab.agent.world_model import WorldModel
from tdmpc_lab.config.schema import AgentConfig

LARGEST_ERROR = 0.1  # of the standard deviation; bfloat16 gives some 0.02
GOOD = "good"
VERDICTS = "selftest.json"

SMALL = AgentConfig(
    latent_dim=48, hidden_dim=72, hidden_layers=2, termination_dim=24, bins=21, simnorm_dim=6, horizon=2
)
FULL = AgentConfig(horizon=2)


def verdict(library: Library, backend: Backend) -> str:
    """`good`, or why it is not: kept from an earlier process, or found out now."""
    path = library.path.with_name(f"{library.path.stem}-{VERDICTS}")
    try:
        known = dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        known = {}
    if backend not in known:
        known[backend] = ask(__name__, str(library.path), backend)
        try:
            write_whole(path, json.dumps(known).encode())
        except OSError as error:  # asked again the next time
            known[backend] += "" if known[backend] == GOOD else f" (this could not be kept: {error})"
    return str(known[backend])


@torch.no_grad()
def compare(library: Library, backend: Backend, config: AgentConfig, *, sequences: int) -> float:
    """Largest error of a mean kind: root mean square error of values over their standard deviation.

    Of a model with random weights, two environments, against the float32 modules.
    """
    generator = Generator().manual_seed(0)
    model = WorldModel(7, 3, config, seed=0)
    for weight in (model.reward.net[-1].weight, model.q.weights[-1]):
        weight.normal_(0.0, 0.3, generator=generator)  # type: ignore[operator]
    z = model.encoder(torch.randn(2, 7, generator=generator))
    noise = torch.randn(2, sequences, config.horizon, 3, generator=generator)
    arguments = {"horizon": config.horizon, "discount": 0.9}
    native = NativeRollouts(library, backend, model, **arguments)  # type: ignore[arg-type]
    plain = ModelRollouts(model, **arguments)  # type: ignore[arg-type]
    found, wanted = _numbers(native, z, noise), _numbers(plain, z, noise)
    errors = [(a - b).square().mean().sqrt() / b.std() for a, b in zip(found, wanted, strict=True)]
    return float(torch.stack(errors).nan_to_num(nan=torch.inf).max())


def compare_training(library: Library, backend: Backend, config: AgentConfig, *, rows: int) -> float:
    """Largest relative error of a network's gradients by its parameters and inputs, dropout among them.

    Of a model with random weights, against the float32 blocks.
    """
    model = WorldModel(7, 3, config, seed=0)
    generator = Generator().manual_seed(0)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.05 * torch.randn(weight.shape, generator=generator))
    observation = torch.randn(rows, 7, generator=generator)
    actions = torch.randn(config.horizon, rows, 3, generator=generator).clamp(-1, 1)
    found, wanted = (
        _gradients(nets, model, observation, actions)
        for nets in (NativeTrainingModel(library, backend, model), TrainingModel(model))
    )
    errors = [(a - b).norm() / b.norm() for a, b in zip(found, wanted, strict=True)]
    return float(torch.stack(errors).nan_to_num(nan=torch.inf).max())


def _gradients(nets: TrainingModel, model: WorldModel, observation: Tensor, actions: Tensor) -> list[Tensor]:
    """By each network's parameters, flat, of a sum of squares of all that comes out."""
    z = nets.encoder(observation)
    latents = nets.unroll(z, actions)
    shape = (model.q.heads, latents.shape[0] * latents.shape[1], model.q.weights[0].shape[2])
    dropped = dropped_entries(shape, model.q.dropout, Generator().manual_seed(1))
    logits = nets.q(latents, actions, dropped=dropped)
    mean, log_std = nets.policy(latents)
    values = [nets.regression.loss(logits, 3 * latents[..., 0]), nets.regression.decode(logits)]
    outputs = [nets.reward(latents, actions), logits, nets.termination(latents), mean, log_std, *values]
    total = sum((out.square().mean() for out in outputs), start=latents.square().mean())
    parts = (model.encoder, model.dynamics, model.reward, model.q, model.termination, model.policy)
    wanted = [list(part.parameters()) for part in parts if part is not None]
    found = iter(torch.autograd.grad(total, [p for part in wanted for p in part]))
    return [torch.cat([next(found).flatten() for _ in part]) for part in wanted]


def compare_step(library: Library, backend: Backend, *, size: int) -> float:
    """Relative error of two of the optimizer's steps, against torch's."""
    moved = []
    for make in (partial(NativeClippedStep, library, BACKENDS.index(backend)), ClippedStep):
        generator = Generator().manual_seed(0)
        parameter = nn.Parameter(torch.zeros(size))
        step = make(torch.optim.Adam([parameter], lr=1e-3, fused=True), {"all": [parameter]}, 1.0)
        for _ in range(2):
            parameter.grad = torch.randn(size, generator=generator)
            step()
        moved.append(parameter.detach())
    found, wanted = moved
    return float(((found - wanted).norm() / wanted.norm()).nan_to_num(nan=torch.inf))


def _numbers(rollouts: Rollouts, z: Tensor, noise: Tensor) -> list[Tensor]:
    start = rollouts.start(z)
    rolled = rollouts.roll(start, noise.clamp(-1, 1))
    terminal = rollouts.terminal(rolled.last, noise[:, :, 0], torch.tensor([3, 1]))
    actions, proposed = rollouts.propose(start, noise)
    return [rolled.value.clone(), terminal, actions, proposed.value]


def main() -> None:
    """Print `good` or what is wrong."""
    library = Library(Path(sys.argv[1]))
    backend = BACKENDS[BACKENDS.index(sys.argv[2])]
    for config, sequences in ((SMALL, 19), (replace(SMALL, policy="clipped_gaussian"), 33), (FULL, 48)):
        error = compare(library, backend, config, sequences=sequences)
        if not error < LARGEST_ERROR:
            print(f"its values are off by {error:.3g} of their standard deviation")
            return
        error = compare_training(library, backend, config, rows=sequences)
        if not error < LARGEST_ERROR:
            print(f"its gradients are off by {error:.3g} of their norm")
            return
    error = compare_step(library, backend, size=70_003)
    if not error < LARGEST_ERROR:
        print(f"its optimizer's steps are off by {error:.3g}")
        return
    print(GOOD)


if __name__ == "__main__":
    main()
