"""The compiled kernels against the torch modules, for every way of multiplying that this processor has.

AMX among them where there is none: its instructions are then done one by one (amx_emulator.cpp).
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from agent_fixtures import TINY, TINY_PLANNER, observations, perturbed, random_batch
from torch import Generator, Tensor, nn

from tdmpc_lab.agent import Agent, AgentConfig, WorldModel
from tdmpc_lab.agent.native.library import BACKENDS, Backend, Library
from tdmpc_lab.agent.native.rollouts import NativeRollouts
from tdmpc_lab.agent.native.training import NativeTrainingModel
from tdmpc_lab.agent.networks import mish
from tdmpc_lab.agent.planner import MPPI
from tdmpc_lab.agent.rollouts import ModelRollouts, Rolled, Rollouts
from tdmpc_lab.config.schema import Spec
from tdmpc_lab.envs import make_env
from tdmpc_lab.training.load import load_agent

pytestmark = pytest.mark.xdist_group("native")

ODD = replace(
    TINY, latent_dim=48, hidden_dim=70, hidden_layers=1, simnorm_dim=6, bins=33, policy="clipped_gaussian", q_heads=3
)
SIZES = {
    "tiny": (TINY, 5, 2),
    "odd": (ODD, 7, 37),
    "three layers": (replace(TINY, hidden_layers=3, hidden_dim=33), 3, 1),
}


def model_of(size: str) -> WorldModel:
    config, observation_dim, action_dim = SIZES[size]
    model = WorldModel(observation_dim, action_dim, config, seed=0)
    return perturbed(model, 0.3 if config.hidden_dim < 50 else 0.15)


def inputs(model: WorldModel, envs: int, count: int, horizon: int) -> tuple[Tensor, Tensor, Tensor]:
    """Latents, actions and noise; the termination head is moved so that some of the sequences end."""
    generator = Generator().manual_seed(4)
    with torch.no_grad():
        z = model.encoder(observations(envs, model.observation_dim))
        noise = torch.randn(envs, count, horizon, model.action_dim, generator=generator)
        actions = 2 * torch.rand(envs, count, horizon, model.action_dim, generator=generator) - 1
        first = model.termination(model.dynamics(z.unsqueeze(1).expand(-1, count, -1), actions[:, :, 0])).flatten()
        ranked = first.sort().values
        gap = (ranked[1:] - ranked[:-1])[len(ranked) // 2 :].argmax() + len(ranked) // 2  # far from both neighbours
        model.termination.mlp[-1].bias -= 0.5 * (ranked[gap] + ranked[gap + 1])
    return z, actions, noise


@torch.no_grad()
def numbers(rollouts: Rollouts, z: Tensor, actions: Tensor, noise: Tensor) -> dict[str, Tensor]:
    start = rollouts.start(z)
    rolled = rollouts.roll(start, actions)
    heads = torch.tensor([2, 0])
    found = {"value": rolled.value.clone(), "alive": rolled.alive.clone()}
    found["terminal"] = rollouts.terminal(rolled.last, noise[:, :, 0], heads).clone()
    found["proposals"], proposed = rollouts.propose(start, noise)
    found["value of proposals"] = proposed.value
    return found


def relative_error(found: Tensor, wanted: Tensor) -> float:
    """Root mean square error over the standard deviation, which may be next to none for a policy's actions."""
    return float((found - wanted).square().mean().sqrt() / wanted.std().clamp(min=0.1))


def rounded(x: Tensor) -> Tensor:
    return x.bfloat16().float()


@torch.no_grad()
def with_rounded_products(model: WorldModel) -> WorldModel:
    """The same modules, but every product takes weights and inputs rounded to bfloat16: what the kernels compute."""
    model = copy.deepcopy(model)
    for module in model.modules():
        if isinstance(module, nn.Linear):
            module.weight.copy_(rounded(module.weight))
            module.register_forward_pre_hook(lambda _, inputs: (rounded(inputs[0]),))
    for weight in model.q.weights:
        weight.copy_(rounded(weight))

    def q(z: Tensor, action: Tensor, *, heads: Tensor, dropped: None, frozen: bool) -> Tensor:
        values = []
        for head in heads:
            h = torch.cat([z, action], dim=-1)
            for i, weight in enumerate(model.q.weights):
                h = rounded(h) @ weight[head] + model.q.biases[i][head, 0]
                if i < len(model.q.norm_weights):
                    norm = model.q.norm_weights[i][head, 0], model.q.norm_biases[i][head, 0]
                    h = mish(nn.functional.layer_norm(h, h.shape[-1:], *norm))
            values.append(h)
        return torch.stack(values)

    model.q.forward = q
    return model


def native(library: Library, backend: Backend, model: WorldModel, horizon: int) -> NativeRollouts:
    return NativeRollouts(library, backend, model, horizon=horizon, discount=0.9)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("envs", "count", "horizon"), [(1, 40, 1), (3, 19, 2), (20, 2, 1), (2, 150, 3)])
def test_gives_what_the_modules_give(library, backend, size, envs, count, horizon):
    """To the rounding of bfloat16, and far closer to modules that round in the same places."""
    model = model_of(size)
    z, actions, noise = inputs(model, envs, count, horizon)
    z, actions = rounded(z), rounded(actions)  # the modules' first layer takes these apart, without rounding
    found = numbers(native(library, backend, model, horizon), z, actions, noise)
    for other, most in ((model, 0.15), (with_rounded_products(model), 0.015)):
        wanted = numbers(ModelRollouts(other, horizon=horizon, discount=0.9), z, actions, noise)
        assert 0 < wanted["alive"].sum() < wanted["alive"].numel()  # the case tells a planner that ignores the end
        same = found["alive"] == wanted["alive"]
        assert same.float().mean() > 0.95  # a logit next to the threshold may fall on its other side
        assert relative_error(found["value"][same], wanted["value"][same]) < most
        for name in ("terminal", "proposals"):
            assert relative_error(found[name], wanted[name]) < most, name


def test_sequences_that_end_keep_the_reward_of_their_last_step(library, backend):
    model = model_of("tiny")
    z, actions, noise = inputs(model, 2, 20, 3)
    with torch.no_grad():
        model.termination.mlp[-1].bias += 1000.0
        reward = model.predict_reward(z.unsqueeze(1).expand(-1, 20, -1), actions[:, :, 0])
    found = numbers(native(library, backend, model, 3), z, actions, noise)
    assert not found["alive"].any()
    assert relative_error(found["value"], reward) < 0.06


@pytest.mark.parametrize("size", SIZES)
def test_any_number_of_threads_and_any_company_give_the_same_bits(library, backend, size):
    model = model_of(size)
    z, actions, noise = inputs(model, 3, 83, 2)
    found = []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        found.append(numbers(native(library, backend, model, 2), z, actions, noise))
    alone = numbers(native(library, backend, model, 2), z[1:2], actions[1:2], noise[1:2])
    for name, first in found[0].items():
        assert torch.equal(first, found[1][name]), name
        assert torch.equal(first, found[2][name]), name
        assert torch.equal(first[1:2], alone[name]), name


def test_ways_of_multiplying_agree_far_better_than_with_float32(library):
    if len(library.backends) < 2:
        pytest.skip("there is one way only")
    model = model_of("three layers")
    z, actions, noise = inputs(model, 2, 50, 2)
    one, other = (numbers(native(library, b, model, 2), z, actions, noise) for b in library.backends[:2])
    for name in ("value", "terminal", "proposals"):
        assert relative_error(one[name], other[name]) < 0.01, name


CHANGES: dict[str, Callable[[WorldModel], object]] = {
    "in place": lambda model: model.dynamics.net[0].weight.mul_(1.5),
    "an ensemble": lambda model: model.q.weights[0].mul_(1.5),
    "a bias": lambda model: model.policy.mean_head.bias.add_(0.3),
    "loaded": lambda model: model.load_state_dict(perturbed(model_of("tiny"), 0.2, seed=3).state_dict()),
    "moved": lambda model: setattr(model.reward.net[0].weight, "data", 1.5 * model.reward.net[0].weight.data),
}


@pytest.mark.parametrize("change", CHANGES)
def test_changed_weights_are_taken_at_the_next_start(library, change):
    model = model_of("tiny")
    z, actions, noise = inputs(model, 1, 30, 2)
    kept = native(library, library.backends[0], model, 2)
    before = numbers(kept, z, actions, noise)
    with torch.no_grad():
        CHANGES[change](model)
    after = numbers(kept, z, actions, noise)
    fresh = numbers(native(library, library.backends[0], model, 2), z, actions, noise)
    assert any(not torch.equal(before[name], after[name]) for name in before)
    assert all(torch.equal(fresh[name], after[name]) for name in after)


def test_an_update_changes_the_weights_in_use(library):
    agent = Agent(5, 2, agent=TINY, planner=TINY_PLANNER, device="cpu")
    perturbed(agent.model)
    z, actions, noise = inputs(agent.model, 1, 30, 2)
    kept = native(library, library.backends[0], agent.model, 2)
    before = numbers(kept, z, actions, noise)
    agent.update(random_batch())
    after = numbers(kept, z, actions, noise)
    fresh = numbers(native(library, library.backends[0], agent.model, 2), z, actions, noise)
    assert all(not torch.equal(before[name], after[name]) for name in ("value", "terminal", "proposals"))
    assert all(torch.equal(fresh[name], after[name]) for name in after)


@pytest.mark.parametrize("part", ["dynamics", "reward"])
def test_nan_is_not_hidden(library, backend, part):
    model = model_of("tiny")
    z, actions, noise = inputs(model, 1, 20, 2)
    with torch.no_grad():
        getattr(model, part).net[0].weight[3, 1] = torch.nan
    assert numbers(native(library, backend, model, 2), z, actions, noise)["value"].isnan().any()


def test_functions_are_exact_to_float32(library, backend):
    number = BACKENDS.index(backend)

    def apply(function: int, x: Tensor) -> Tensor:
        y = x.clone()
        library.apply(function, y.data_ptr(), y.numel(), number)
        return y.double()

    x = torch.cat([torch.linspace(-86, 88, 160_000), torch.linspace(-1, 1, 160_000)])
    exact = x.double().exp()
    assert ((apply(0, x) - exact) / exact).abs().max() < 4e-7
    assert (apply(0, torch.full((16,), -1e30)) < 1e-37).all()
    assert apply(0, torch.full((16,), torch.nan)).isnan().all()
    exact = torch.nn.functional.mish(x.double())
    assert ((apply(1, x) - exact).abs() / exact.abs().clamp(min=1e-30))[x > -80].max() < 1e-5
    assert (apply(1, torch.full((16,), -1e4)).abs() < 1e-30).all()
    assert apply(1, torch.full((16,), torch.nan)).isnan().all()
    logits = 30 * torch.randn(16_000, generator=Generator().manual_seed(0))
    exact = logits.double().view(-1, 8).softmax(-1).flatten()
    torch.testing.assert_close(apply(2, logits), exact, rtol=5e-6, atol=1e-12)


def reference_case(library: Library) -> tuple[Rolled, Tensor, Rolled, Tensor]:
    """One iteration of the reference agent's search, in float32 and by the kernels."""
    config = AgentConfig(horizon=9)
    model = WorldModel(18, 4, config, seed=0)
    generator = Generator().manual_seed(0)
    with torch.no_grad():
        for weight in (model.reward.net[-1].weight, model.q.weights[-1]):
            weight.normal_(0.0, 0.05, generator=generator)
        z = model.encoder(torch.randn(1, 18, generator=generator))
        actions = 2 * torch.rand(1, 256, 9, 4, generator=generator) - 1
        noise, heads = torch.randn(1, 256, 4, generator=generator), torch.tensor([4, 1])
        found = []
        for rollouts in (ModelRollouts(model, horizon=9, discount=0.99), NativeRollouts(
            library, next(b for b in library.backends if b != "emulation"), model, horizon=9, discount=0.99
        )):  # fmt: skip
            rolled = rollouts.roll(rollouts.start(z), actions)
            found += [rolled, rollouts.terminal(rolled.last, noise, heads)]
    return tuple(found)


def test_the_reference_agent_ranks_sequences_as_in_float32(library):
    if library.backends[0] == "emulation":
        pytest.skip("emulated tiles are too slow for the full size")
    rolled, terminal, native_rolled, native_terminal = reference_case(library)
    wanted = (rolled.value + 0.99**9 * rolled.alive * terminal)[0]
    found = (native_rolled.value + 0.99**9 * native_rolled.alive * native_terminal)[0]
    assert torch.corrcoef(torch.stack([found, wanted]))[0, 1] > 0.99
    elites = [set(values.topk(32).indices.tolist()) for values in (found, wanted)]
    assert len(elites[0] & elites[1]) >= 0.95 * 32


def states_of_games(agent: Agent, spec: Spec) -> Tensor:
    """Every tenth observation (N, 18) of a few games."""
    found = []
    for seed, opponent in enumerate(("weak", "strong", "weak", "strong")):
        env = make_env(replace(spec.env, opponent=opponent, self_play=None))
        observation, over = env.reset(seed), False
        for step in itertools.count():
            if step % 10 == 0:
                found.append(observation.copy())
            if over:
                break
            result = env.step(agent.act_prior(observation[None])[0])
            observation, over = result.obs, result.terminated or result.truncated
        env.close()
    return torch.from_numpy(np.stack(found))


@torch.no_grad()
def test_the_shipped_agent_ranks_sequences_as_in_float32(library):
    """A trained agent at states of real games."""
    if library.backends[0] == "emulation":
        pytest.skip("emulated tiles are too slow for so many")
    loaded = load_agent(Path(__file__).parents[2] / "models" / "hockey" / "agent.pt", device="cpu")
    agent, spec = loaded.agent, loaded.spec
    z = agent.model.encoder(states_of_games(agent, spec))
    generator = Generator().manual_seed(0)
    actions = torch.randn(len(z), 128, spec.agent.horizon, 4, generator=generator).clamp(-1, 1)
    noise, heads = torch.randn(len(z), 128, 4, generator=generator), torch.tensor([2, 0])
    constants = {"horizon": spec.agent.horizon, "discount": agent.discount}
    values = []
    for rollouts in (
        ModelRollouts(agent.model, **constants),
        NativeRollouts(library, library.backends[0], agent.model, **constants),
    ):
        rolled = rollouts.roll(rollouts.start(z), actions)
        values.append(MPPI(spec.planner, **constants).sequence_value(rollouts, rolled, noise, heads))
    correlations = [float(torch.corrcoef(torch.stack(pair))[0, 1]) for pair in zip(*values, strict=True)]
    assert np.mean(correlations) > 0.995
    assert min(correlations) > 0.98
    best = [[set(row.topk(spec.planner.elites).indices.tolist()) for row in of] for of in values]
    assert np.mean([len(a & b) / spec.planner.elites for a, b in zip(*best, strict=True)]) > 0.95


def test_an_agent_that_has_learned_ranks_sequences_as_in_float32(library, backend):
    """After 120 updates by the kernels themselves on one batch: rewards, values and latents are no longer noise."""
    config = replace(TINY, latent_dim=64, hidden_dim=64, termination_dim=32, bins=101, lr=2e-3)
    agent = Agent(5, 2, agent=config, planner=TINY_PLANNER, device="cpu")
    agent.nets = NativeTrainingModel(library, backend, agent.model)
    batch = random_batch(batch=64)
    losses = [agent.update(batch)["loss/total"].item() for _ in range(120)]
    assert losses[-1] < 0.7 * losses[0]
    model = agent.model
    z, actions, noise = inputs(model, 2, 200, 3)
    with torch.no_grad():
        model.termination.mlp[-1].bias -= 100  # none ends: one that does on one side only is another matter
    plain = numbers(ModelRollouts(model, horizon=3, discount=0.9), z, actions, noise)
    native = numbers(NativeRollouts(library, backend, model, horizon=3, discount=0.9), z, actions, noise)
    for wanted, found in zip(*(n["value"] + 0.9**3 * n["alive"] * n["terminal"] for n in (plain, native)), strict=True):
        assert torch.corrcoef(torch.stack([found, wanted]))[0, 1] > 0.99
        elites = [set(values.topk(32).indices.tolist()) for values in (found, wanted)]
        assert len(elites[0] & elites[1]) >= 0.95 * 32
