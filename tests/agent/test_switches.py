"""Every switch of the update against the slow float64 reference, gradients included; and the optima of the entropy."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
from agent_fixtures import TINY, perturbed, tiny_agent
from numpy_reference import Reference, weights_of
from torch import Generator, Tensor

from tdmpc_lab.agent import Agent, AgentConfig, Batch, PlannerConfig
from tdmpc_lab.agent.learner import Mirror, UpdateDraws
from tdmpc_lab.agent.policy import clipped_entropy, distribution
from tdmpc_lab.agent.rollouts import ModelRollouts

SWITCHES: dict[str, dict[str, object]] = {
    "none": {},
    "squashed entropy": {"entropy": "squashed", "entropy_weight": 0.3},
    "gaussian entropy": {"entropy": "gaussian", "entropy_weight": 0.3},
    "encoder norm": {"encoder_norm": True},
    "no termination head": {"termination": False},
    "two-step targets": {"td_steps": 2},
    "five-step targets": {"td_steps": 5},
    "cloned": {"policy_prior": "cloned"},
    "planner": {"policy_prior": "planner"},
    "all": {
        "entropy": "squashed",
        "encoder_norm": True,
        "termination": False,
        "td_steps": 3,
        "policy_prior": "cloned",
        "entropy_weight": 0.3,
    },
}
STEP = 1e-5  # of the finite differences


def batch_for(config: AgentConfig, size: int = 6) -> Batch:
    """A whole sub-sequence, one that ends in its last step, and some that run over an end, terminated or cut off."""
    generator = Generator().manual_seed(2)
    window = config.horizon + config.td_steps - 1
    ends = [None, window - 1, 0, 1, 0, 1][:size]
    terminated, truncated, valid = torch.zeros(3, window, size).unbind(0)
    valid += 1
    for b, end in enumerate(ends):
        if end is not None:
            (terminated if b < 4 else truncated)[end, b] = 1
            valid[end + 1 :, b] = 0
    actions = 2 * torch.rand(window, size, 2, generator=generator) - 1
    observations = torch.randn(window + 1, size, 5, generator=generator)
    for b, end in enumerate(ends):  # as the replay pads
        if end is not None:
            observations[end + 2 :, b] = observations[end + 1, b]
            actions[end + 1 :, b] = 0
    return Batch(
        observations=observations,
        actions=actions,
        rewards=3 * torch.randn(window, size, generator=generator) * valid,
        terminated=terminated,
        truncated=truncated,
        valid=valid,
        random=(torch.rand(window, size, generator=generator) < 0.3).float() * valid,
        plan_mean=(actions * 0.9).half().float(),
        plan_std=(0.6 * torch.rand(window, size, 2, generator=generator)).half().float(),
    )


def arrays(tensors: Batch | UpdateDraws) -> dict[str, np.ndarray]:
    found = {f.name: getattr(tensors, f.name) for f in dataclasses.fields(tensors)}
    return {
        name: t.double().numpy() if t.dtype.is_floating_point else t.numpy()
        for name, t in found.items()
        if t is not None
    }


def moved(
    state: dict[str, np.ndarray], part: str, direction: dict[str, np.ndarray], by: float
) -> dict[str, np.ndarray]:
    return {k: v + by * direction[k] if k.startswith(f"{part}.") else v for k, v in state.items()}


@pytest.mark.parametrize("name", SWITCHES)
@pytest.mark.parametrize("scale", [1.0, 5.0])
def test_losses_targets_and_gradients_equal_the_reference(name: str, scale: float) -> None:
    config = dataclasses.replace(TINY, **SWITCHES[name])
    agent = tiny_agent(config=config)
    model, learner = perturbed(agent.model), agent.learner
    learner.scale.value.fill_(scale)
    batch = batch_for(config)
    draws = learner.draw(batch)
    with torch.no_grad():
        next_z = learner.nets.encoder(batch.observations[1:])
        target = learner.td_target(next_z, batch, draws)
    latents, losses = learner.model_losses(batch, next_z, target, draws)
    policy, metrics = learner.policy_loss(latents.detach(), batch, draws)

    given, drawn = arrays(batch), arrays(draws)
    state = weights_of(model)
    reference = Reference(model, config)
    targets = reference.targets(given, drawn, 0.9)
    np.testing.assert_allclose(target.numpy() * given["valid"][:3], targets * given["valid"][:3], rtol=2e-3, atol=2e-4)
    encoded = next_z.double().numpy()
    used = float(metrics["policy/scale"])
    fixed = latents.detach().double().numpy()

    def model_loss(weights: dict[str, np.ndarray]) -> float:
        return Reference(model, config, weights).model_loss(given, target.double().numpy(), encoded)

    def policy_loss(weights: dict[str, np.ndarray]) -> float:
        return Reference(model, config, weights).policy_loss(fixed, given, drawn, used)

    assert losses["loss/total"].item() == pytest.approx(model_loss(state), rel=1e-3)
    assert policy.item() == pytest.approx(policy_loss(state), rel=1e-3, abs=1e-5)
    model.zero_grad()
    losses["loss/total"].backward()
    policy.backward()
    rng = np.random.default_rng(0)
    parts = ["encoder", "dynamics", "reward", "termination", "q", "policy"]
    for part in parts if config.termination else [p for p in parts if p != "termination"]:
        direction = {k: rng.normal(size=v.shape) for k, v in state.items()}
        loss = policy_loss if part == "policy" else model_loss
        up, down = (loss(moved(state, part, direction, by)) for by in (STEP, -STEP))
        wanted = (up - down) / (2 * STEP)
        gradients = dict(getattr(model, part).named_parameters())
        found = sum(float((p.grad.double().numpy() * direction[f"{part}.{k}"]).sum()) for k, p in gradients.items())
        norm = sum(float(p.grad.double().square().sum()) for p in gradients.values()) ** 0.5
        assert found == pytest.approx(wanted, rel=5e-3, abs=2e-3 * norm), part


def test_padded_steps_count_for_nothing() -> None:
    """What stands behind an end, observations among it, changes neither losses nor gradients."""
    config = dataclasses.replace(TINY, policy_prior="planner", td_steps=2)
    found = []
    for noise in (0.0, 1.0):
        agent = tiny_agent(config=config)
        perturbed(agent.model)
        agent.learner.scale.value.fill_(5.0)
        batch = batch_for(config)
        behind = 1 - batch.valid
        unseen = torch.cat([torch.zeros_like(behind[:1]), behind]).unsqueeze(-1)
        batch = dataclasses.replace(
            batch,
            observations=batch.observations + noise * unseen,
            rewards=batch.rewards + noise * behind,
            plan_mean=batch.plan_mean + noise * behind.unsqueeze(-1),
        )
        found.append(agent.update(batch))
    for name, value in found[0].items():
        torch.testing.assert_close(found[1][name], value, rtol=1e-5, atol=1e-6, msg=name)


def test_a_batch_in_which_nothing_runs_over_has_the_losses_of_one_without_a_mask() -> None:
    updates = []
    for masked in (False, True):
        agent = tiny_agent()
        perturbed(agent.model)
        batch = dataclasses.replace(batch_for(TINY), random=None, plan_mean=None, plan_std=None)
        ones = torch.ones_like(batch.rewards)
        updates.append(agent.update(dataclasses.replace(batch, valid=ones if masked else None)))
    for name, value in updates[0].items():
        torch.testing.assert_close(updates[1][name], value, rtol=1e-5, atol=1e-6, msg=name)


def test_n_step_target_by_hand() -> None:
    """γ = 0.9, three steps: r₀ + 0.9 r₁ + 0.81 r₂ + 0.729 V₂; stopped by an end, bootstrapped early by a time limit."""
    config = dataclasses.replace(TINY, td_steps=3, horizon=1)
    agent = tiny_agent(config=config)
    zeros = torch.zeros(3, 3)
    terminated, valid = zeros.clone(), torch.ones(3, 3)
    terminated[1, 1] = 1
    valid[2, 1:] = 0
    batch = Batch(
        observations=torch.zeros(4, 3, 5),
        actions=torch.zeros(3, 3, 2),
        rewards=torch.tensor([[1.0], [10.0], [100.0]]) * valid,
        terminated=terminated,
        truncated=zeros,
        valid=valid,
    )
    values = torch.tensor([[2.0], [3.0], [4.0]]).expand(3, 3)
    agent.learner.nets.q_values = lambda *_args, **_named: values.unsqueeze(0)  # type: ignore[method-assign]
    target = agent.learner.td_target(torch.zeros(3, 3, 16), batch, agent.learner.draw(batch))
    expected = [1 + 9 + 81 + 0.729 * 4, 1 + 9, 1 + 9 + 0.81 * 3]
    assert target.shape == (1, 3)
    assert target[0].tolist() == pytest.approx(expected)


def test_mirrored_batches() -> None:
    """Observation, action and planned mean change their signs where the coin says so; all else stays."""
    signs = torch.tensor([1.0, -1, 1, -1, 1]), torch.tensor([-1.0, 1])
    batch = batch_for(TINY)
    mirrored = torch.tensor([True, False, True, False, False, True])
    found = Mirror(*signs).of(batch, mirrored)
    for b, is_mirrored in enumerate(mirrored.tolist()):
        observation, action = signs if is_mirrored else (torch.ones(5), torch.ones(2))
        assert torch.equal(found.observations[:, b], batch.observations[:, b] * observation)
        assert torch.equal(found.actions[:, b], batch.actions[:, b] * action)
        assert torch.equal(found.plan_mean[:, b], batch.plan_mean[:, b] * action)
    for name in ("rewards", "terminated", "truncated", "valid", "random", "plan_std"):
        assert torch.equal(getattr(found, name), getattr(batch, name))


def test_an_agent_with_a_mirror_learns_from_half_of_its_batches_mirrored() -> None:
    agent = Agent(5, 2, agent=TINY, seed=1, device="cpu", mirror=([1, -1, 1, 1, 1], [1, -1]))
    coins = [agent.learner.draw(batch_for(TINY)).mirrored.float().mean() for _ in range(50)]
    assert torch.stack(coins).mean().item() == pytest.approx(0.5, abs=0.1)
    plain = Agent(5, 2, agent=TINY, seed=1, device="cpu")
    assert plain.learner.draw(batch_for(TINY)).mirrored is None
    perturbed(agent.model), perturbed(plain.model)
    given = batch_for(TINY)
    agent.learner.generator.manual_seed(5)
    draws = agent.learner.draw(given)
    losses = agent.learner.learn(given, draws)
    turned = Mirror(torch.tensor([1.0, -1, 1, 1, 1]), torch.tensor([1.0, -1])).of(given, draws.mirrored)
    expected = plain.learner.learn(turned, dataclasses.replace(draws, mirrored=None))
    assert all(torch.equal(losses[name], expected[name]) for name in expected)


def test_an_update_is_its_draws() -> None:
    """`update` is `draw`, then `learn`; the draws come in an order that old trainings rely on."""
    config = dataclasses.replace(TINY, dropout=0.1)
    one, other = (tiny_agent(seed=4, config=config) for _ in range(2))
    batch = dataclasses.replace(batch_for(TINY), valid=None, random=None, plan_mean=None, plan_std=None)
    expected = one.update(batch)
    draws = other.learner.draw(batch)
    found = other.learner.learn(batch, draws)
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    again = Generator().manual_seed(4)
    assert torch.equal(draws.target, torch.randn(3, 6, 2, generator=again))
    assert torch.equal(draws.target_heads, one.model.two_heads(again))
    gaps = torch.empty(5 * 18 * 24 // 10 + int(8 * ((5 * 18 * 24 / 10) ** 0.5 + 1)) + 1, dtype=torch.float64)
    positions = gaps.geometric_(0.1, generator=again).cumsum(0).long() - 1
    assert torch.equal(draws.dropped, positions[positions < 5 * 18 * 24])
    assert torch.equal(draws.policy, torch.randn(4, 6, 2, generator=again))
    assert torch.equal(draws.policy_heads, one.model.two_heads(again))


def settled(value_weight: float, *, scaled_by: float = 1.0, head: str = "squashed_gaussian") -> tuple[float, float]:
    """tanh(mean) and spread that gradient steps on value + 1e-4 · entropy end at, with many draws a step."""
    mean, log_std = torch.zeros(1, requires_grad=True), torch.full((1,), -1.0, requires_grad=True)
    optimizer = torch.optim.Adam([mean, log_std], lr=0.02)
    generator = Generator().manual_seed(0)
    for step in range(600):
        for group in optimizer.param_groups:
            group["lr"] = 0.02 * (1 - step / 600)
        eps = torch.randn(4096, 1, generator=generator)
        sample = distribution(head, mean.expand(4096, 1), log_std.expand(4096, 1), eps, "squashed")  # type: ignore[arg-type]
        value = -value_weight * (sample.action - 0.3).square().mean()
        loss = -(value + scaled_by * 1e-4 * sample.entropy.mean()) * 1e4
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return torch.tanh(mean).item(), log_std.exp().item()


def test_where_the_entropy_of_the_squashed_policy_settles() -> None:
    assert settled(0.0)[1] == pytest.approx(0.874, abs=0.03)
    mean, spread = settled(0.001)
    assert mean == pytest.approx(0.31, abs=0.03)
    assert spread == pytest.approx(0.25, abs=0.05)


def test_the_entropy_does_not_depend_on_the_number_of_entries() -> None:
    """Four entries have four times the entropy of one, so that each settles where one alone would."""
    mean, log_std, eps = torch.randn(3, 10, 4, generator=Generator().manual_seed(0)).unbind(0)
    whole = distribution("squashed_gaussian", mean, log_std, eps, "squashed").entropy
    single = [
        distribution("squashed_gaussian", *(x[:, i : i + 1] for x in (mean, log_std, eps)), "squashed")
        for i in range(4)
    ]
    torch.testing.assert_close(whole, torch.stack([one.entropy for one in single]).sum(0))


@pytest.mark.parametrize(("mean", "std"), [(0.0, 0.5), (0.3, 0.2), (0.9, 1.5), (-0.99, 0.01), (0.0, 7.0)])
def test_entropy_of_the_clipped_head(mean: float, std: float) -> None:
    """Against an integral over (−1, 1) and the two points at its ends, by a fine sum."""
    x = torch.linspace(-1, 1, 400_001, dtype=torch.float64)
    log_density = -0.5 * ((x - mean) / std) ** 2 - math.log(std) - 0.5 * math.log(2 * math.pi)
    wanted = -torch.trapezoid(log_density.exp() * log_density, x).item()
    for end in ((-1 - mean) / std, (mean - 1) / std):
        tail = 0.5 * math.erfc(-end / math.sqrt(2))
        wanted -= tail * math.log(tail) if tail > 0 else 0.0
    found = clipped_entropy(torch.tensor(mean), torch.tensor(math.log(std)))
    assert found.item() == pytest.approx(wanted, abs=1e-4)


def test_the_clipped_head_settles_too() -> None:
    """On a flat value at 1.49, the largest entropy there is; where a value pulls, near it."""
    std = torch.linspace(0.05, 8, 20_000)
    best = std[clipped_entropy(torch.zeros_like(std), std.log()).argmax()].item()
    assert best == pytest.approx(1.49, abs=0.01)
    assert settled(0.0, head="clipped_gaussian")[1] == pytest.approx(best, abs=0.03)
    mean, spread = settled(0.001, head="clipped_gaussian")
    assert mean == pytest.approx(0.3, abs=0.03)
    assert 0.1 < spread < 0.4


def test_without_the_correction_the_spread_grows_without_limit() -> None:
    log_std = torch.zeros(1, requires_grad=True)
    sample = distribution(
        "squashed_gaussian", torch.zeros(100, 1), log_std.expand(100, 1), torch.randn(100, 1), "gaussian"
    )
    sample.entropy.mean().backward()
    assert log_std.grad.item() == pytest.approx(1.0)  # whatever the spread is


@pytest.mark.parametrize("switch", [{}, {"termination": False}, {"encoder_norm": True}], ids=str)
@pytest.mark.parametrize("pessimism", [0.0, 0.7])
def test_planning_equals_the_reference(switch: dict[str, object], pessimism: float) -> None:
    config = dataclasses.replace(TINY, **switch)
    planner = PlannerConfig(samples=8, iterations=1, elites=4, policy_trajectories=2, pessimism=pessimism)
    agent = Agent(5, 2, agent=config, planner=planner, seed=0, device="cpu")
    model = perturbed(agent.model)
    reference = Reference(model, config)
    generator = Generator().manual_seed(1)
    observation = torch.randn(1, 5, generator=generator)
    actions = 2 * torch.rand(1, 8, 3, 2, generator=generator) - 1
    noise = torch.randn(1, 8, 2, generator=generator)
    heads = torch.tensor([3, 1])
    plain = ModelRollouts(model, horizon=3, discount=0.9, pessimism=pessimism)

    def values(rollouts: object) -> Tensor:
        with torch.inference_mode():
            rolled = rollouts.roll(rollouts.start(model.encoder(observation)), actions)  # type: ignore[attr-defined]
            return agent.planner.sequence_value(rollouts, rolled, noise, heads)[0]  # type: ignore[arg-type]

    wanted = [
        reference.sequence_value(
            observation[0].double().numpy(),
            actions[0, n].double().numpy(),
            0.9,
            [3, 1],
            noise[0, n].double().numpy(),
            pessimism,
        )
        for n in range(8)
    ]
    np.testing.assert_allclose(values(plain).numpy(), wanted, rtol=2e-3, atol=1e-3)
    torch.testing.assert_close(values(agent.rollouts), values(plain), rtol=0.05, atol=0.05 * float(np.std(wanted)))
