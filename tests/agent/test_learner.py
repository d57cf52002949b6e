from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from agent_fixtures import TINY, perturbed, random_batch, tiny_agent
from numpy_reference import Reference
from torch import Generator


def learner_and_reference(config=TINY):
    agent = tiny_agent(config=config)
    perturbed(agent.model)
    return agent.learner, Reference(agent.model, config)


def test_td_target_by_hand_with_termination_and_truncation():
    """r + γ·V for a running and for a truncated step, r alone for a terminated one."""
    learner, reference = learner_and_reference()
    batch = random_batch(horizon=3, batch=3)
    terminated = torch.zeros(3, 3)
    terminated[2, 0] = 1.0  # episode 0 ends for good, episode 1 is cut off at the same step, episode 2 continues
    batch = dataclasses.replace(batch, terminated=terminated)
    draws = learner.draw(batch)
    with torch.no_grad():
        next_z = learner.nets.encoder(batch.observations[1:])
    target = learner.td_target(next_z, batch, draws)

    eps = draws.target.double().numpy()
    heads = draws.target_heads.tolist()
    for t in range(3):
        for b in range(3):
            expected = reference.td_target(
                batch.observations[t + 1, b].double().numpy(),
                batch.rewards[t, b].item(),
                terminated[t, b].item(),
                0.9,
                heads,
                eps[t, b],
            )
            assert target[t, b].item() == pytest.approx(expected, rel=2e-3, abs=1e-4)
    assert target[2, 0].item() == pytest.approx(batch.rewards[2, 0].item())
    assert abs(target[2, 1].item() - batch.rewards[2, 1].item()) > 1e-3


def test_losses_equal_the_slow_reference():
    learner, reference = learner_and_reference()
    batch = random_batch()
    targets = torch.linspace(-4, 9, 12).view(3, 4)
    with torch.no_grad():
        next_z = learner.nets.encoder(batch.observations[1:])
    _, ours = learner.model_losses(batch, next_z, targets, learner.draw(batch))
    theirs = reference.losses(
        *(t.double().numpy() for t in (batch.observations, batch.actions, batch.rewards, batch.terminated, targets))
    )
    for name, value in theirs.items():
        assert ours[f"loss/{name}"].item() == pytest.approx(value, rel=1e-3), name
    total = 20 * theirs["consistency"] + 0.1 * theirs["reward"] + 0.1 * theirs["value"] + theirs["termination"]
    assert ours["loss/total"].item() == pytest.approx(total, rel=1e-3)


def test_policy_loss_by_hand():
    learner, reference = learner_and_reference()
    latents = torch.softmax(torch.randn(4, 6, 2, 8, generator=Generator().manual_seed(1)), -1).flatten(-2)
    batch = random_batch(batch=6)
    draws = learner.draw(batch)
    loss, metrics = learner.policy_loss(latents, batch, draws)
    eps = draws.policy.double().numpy()
    heads = draws.policy_heads.tolist()
    q, entropy = np.zeros((4, 6)), np.zeros((4, 6))
    for t in range(4):
        for b in range(6):
            z = latents[t, b].double().numpy()
            a, gaussian, squashed = reference.policy(z, eps[t, b])
            q[t, b] = np.mean([reference.decode(reference.q_logits(z, a, h)) for h in heads])
            entropy[t, b] = -squashed * (gaussian * 2 / (squashed + 1e-8))
    low, high = np.percentile(q[0], [5, 95])
    scale = 1 + 0.01 * (max(1.0, high - low) - 1)
    expected = np.mean([0.5**t * -(q[t] / scale + 1e-4 * entropy[t]).mean() for t in range(4)])
    assert loss.item() == pytest.approx(expected, rel=1e-3, abs=1e-5)
    assert metrics["policy/scale"].item() == pytest.approx(scale, rel=1e-4)
    assert learner.scale.value.item() == 1.0, "a loss changes nothing"


def test_encoder_gets_no_gradient_from_the_targets():
    """With every other path to the encoder cut, neither consistency nor TD targets may reach it."""
    learner, _ = learner_and_reference()
    batch = random_batch()
    encoder = learner.model.encoder
    with torch.no_grad():
        next_z = encoder(batch.observations[1:])
    draws = learner.draw(batch)
    target = learner.td_target(next_z, batch, draws)
    assert not target.requires_grad
    # the same numbers as constants must give the same encoder gradient as the update computes them
    _, losses = learner.model_losses(batch, next_z, target, draws)
    losses["loss/total"].backward()
    with_targets = [p.grad.clone() for p in encoder.parameters()]
    encoder.zero_grad()
    _, losses = learner.model_losses(batch, torch.tensor(next_z.tolist()), torch.tensor(target.tolist()), draws)
    losses["loss/total"].backward()
    for a, p in zip(with_targets, encoder.parameters(), strict=True):
        torch.testing.assert_close(a, p.grad, rtol=1e-4, atol=1e-7)
    # observations after the first enter through targets only: no gradient to them
    observations = batch.observations.clone().requires_grad_()
    with torch.no_grad():
        next_z = encoder(observations[1:])
    _, losses = learner.model_losses(dataclasses.replace(batch, observations=observations), next_z, target, draws)
    losses["loss/total"].backward()
    assert observations.grad[0].abs().sum() > 0
    assert observations.grad[1:].abs().sum() == 0


def test_gradients_are_blocked_where_they_must_be():
    learner, _ = learner_and_reference()
    model = learner.model
    latents = torch.rand(4, 6, 16, generator=Generator().manual_seed(1), requires_grad=True)
    draws = learner.draw(random_batch(batch=6))
    loss, _ = learner.policy_loss(latents.detach(), random_batch(batch=6), draws)
    loss.backward()
    assert all(p.grad is None for p in model.q.parameters())
    assert all(p.grad is None for p in model.model_parameters())
    assert latents.grad is None
    assert sum(p.grad.abs().sum() for p in model.policy.parameters()) > 0
    model.policy.zero_grad(set_to_none=True)

    batch = random_batch()
    with torch.no_grad():
        next_z = model.encoder(batch.observations[1:])
    _, losses = learner.model_losses(batch, next_z, batch.rewards, learner.draw(batch))
    losses["loss/total"].backward()
    assert all(p.grad is None for p in model.policy.parameters())
    assert all(p.grad is None for p in model.q_target.parameters())
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.model_parameters())


def test_update_moves_each_part_and_the_target_by_tau():
    learner, _ = learner_and_reference()
    model = learner.model
    before = {k: v.clone() for k, v in model.state_dict().items()}
    losses = learner.update(random_batch())
    after = model.state_dict()
    for part in ("encoder", "dynamics", "reward", "termination", "q", "q_target", "policy"):
        assert any(not torch.equal(before[k], after[k]) for k in before if k.startswith(part + ".")), part
    for key, old in before.items():
        if key.startswith("q_target."):
            online = after[key.replace("q_target.", "q.")]
            torch.testing.assert_close(after[key], old.lerp(online, 0.01), rtol=0, atol=1e-6)
    assert all(v.isfinite() and v.ndim == 0 for v in losses.values())


def test_learning_rates_and_clipping():
    learner, _ = learner_and_reference()
    rates = [g["lr"] for g in learner.model_optimizer.param_groups]
    assert rates == [pytest.approx(9e-5), pytest.approx(3e-4)]
    assert {id(p) for p in learner.model_optimizer.param_groups[0]["params"]} == {
        id(p) for p in learner.model.encoder.parameters()
    }
    assert learner.policy_optimizer.param_groups[0]["eps"] == 1e-5
    huge = random_batch()
    learner.config = dataclasses.replace(TINY, reward_weight=1e6, grad_clip=20.0)
    learner.update(huge)
    norm = torch.sqrt(sum(p.grad.square().sum() for p in learner.model.model_parameters()))
    assert norm.item() == pytest.approx(20.0, rel=1e-3)


def test_adam_first_step_by_hand():
    """After one update each weight has moved by lr · g/(|g| + eps·√…) ≈ lr · sign(g): the rates really are applied."""
    learner, _ = learner_and_reference()
    weight = learner.model.encoder.net[0].weight
    other = learner.model.dynamics.net[0].weight
    before, before_other = weight.detach().clone(), other.detach().clone()
    learner.update(random_batch())
    moved = (weight - before).abs()[weight.grad.abs() > 1e-4]
    moved_other = (other - before_other).abs()[other.grad.abs() > 1e-4]
    assert moved.median().item() == pytest.approx(9e-5, rel=0.02)
    assert moved_other.median().item() == pytest.approx(3e-4, rel=0.02)


def overfitted(seed: int) -> tuple[float, float]:
    """What is left of the consistency and of the termination loss after learning one small batch by heart, whose
    rewards must be known by then."""
    config = dataclasses.replace(TINY, lr=1e-3, encoder_lr_scale=1.0, hidden_dim=64, termination_dim=64)
    agent = tiny_agent(seed=seed, config=config)
    batch = random_batch(batch=8)
    # the value's target moves with the policy, so hold it still: γ = 0 makes it the reward
    agent.learner.discount = 0.0
    losses = [agent.update(batch) for _ in range(300)]
    for group in agent.learner.model_optimizer.param_groups:
        group["lr"] *= 0.1  # where the loss lies then depends on where Adam's last long steps went, so let it settle
    losses += [agent.update(batch) for _ in range(100)]
    with torch.no_grad():
        z = agent.model.encoder(batch.observations[0])
        decoded = agent.model.predict_reward(z, batch.actions[0])
        q = agent.model.q_values(z, batch.actions[0], torch.arange(5)).mean(0)
    torch.testing.assert_close(decoded, batch.rewards[0], atol=0.3, rtol=0.15)
    torch.testing.assert_close(q, batch.rewards[0], atol=0.3, rtol=0.15)
    consistency, termination = (
        [float(each[f"loss/{name}"]) for each in losses] for name in ("consistency", "termination")
    )
    return consistency[-1] / max(consistency[:50]), termination[-1] / termination[0]


@pytest.mark.timeout(600)  # seconds on a quiet machine, minutes on one with a dozen jobs beside it
def test_overfits_a_fixed_tiny_batch():
    """Trajectories are chaotic: rounding, so the processor, decides where a single one ends. Hence three of them.

    Measured, seeds 0 to 9, torch's kernels for AVX2, for AVX-512 and for neither: consistency 0.06 to 0.45 of its
    maximum (medians of three: 0.09 to 0.16), termination at most 0.07 of its start, rewards and values off by at
    most 0.37 of what is allowed. With a loss's weight at 0: consistency 1.23 or more, termination 1.00, rewards and
    values off by 4.3 of it.
    """
    consistency, termination = zip(*(overfitted(seed) for seed in range(3)), strict=True)
    assert np.median(consistency) < 0.5
    assert max(termination) < 0.2


def test_same_seed_same_updates_to_the_last_bit():
    runs = []
    for _ in range(2):
        agent = tiny_agent(seed=4, config=dataclasses.replace(TINY, dropout=0.1))
        torch.manual_seed(len(runs))  # global random state must not matter
        for k in range(5):
            agent.update(random_batch(seed=k))
        runs.append(agent.model.state_dict())
    assert all(torch.equal(runs[0][k], runs[1][k]) for k in runs[0])


def test_state_dict_continues_exactly():
    def batches(agent, seeds):
        for k in seeds:
            agent.update(random_batch(seed=k))

    config = dataclasses.replace(TINY, dropout=0.1)
    straight, first, second = (tiny_agent(seed=4, config=config) for _ in range(3))
    batches(straight, range(6))
    batches(first, range(3))
    second.load_state_dict(first.state_dict())
    batches(second, range(3, 6))
    expected, found = straight.model.state_dict(), second.model.state_dict()
    assert all(torch.equal(expected[k], found[k]) for k in expected)


def test_update_accepts_a_batch_of_one_and_horizon_one():
    agent = tiny_agent(config=dataclasses.replace(TINY, horizon=1))
    losses = agent.update(random_batch(1, 1))
    assert losses["loss/total"].isfinite()


def test_an_update_shows_in_the_version_of_every_weight():
    """The planner keeps copies of the weights and asks for nothing else."""
    agent = tiny_agent()
    perturbed(agent.model)
    before = {name: (p._version, p.detach().clone()) for name, p in agent.model.named_parameters()}
    agent.update(random_batch())
    for name, p in agent.model.named_parameters():
        assert not torch.equal(p, before[name][1]), name
        assert p._version > before[name][0], name


def test_gradient_norms_by_part_are_those_of_the_gradients() -> None:
    config = dataclasses.replace(TINY, grad_clip=1e9)  # nothing is clipped: the gradients stay as they were
    agent = tiny_agent(config=config)
    perturbed(agent.model)
    losses = agent.update(random_batch())
    parts = ("encoder", "dynamics", "reward", "termination", "q", "policy")
    for part in parts:
        grads = [p.grad for p in getattr(agent.model, part).parameters()]
        norm = sum(float(g.double().square().sum()) for g in grads if g is not None) ** 0.5
        assert norm > 0
        assert float(losses[f"grad_norm/{part}"]) == pytest.approx(norm, rel=1e-5)
    whole = sum(float(losses[f"grad_norm/{part}"]) ** 2 for part in parts[:-1]) ** 0.5
    assert float(losses["grad_norm/model"]) == pytest.approx(whole, rel=1e-5)


def test_a_learner_that_goes_on_keeps_its_own_learning_rates():
    """A job resumed with another `agent.lr` learns at that rate, with the averages of the checkpoint."""
    first = tiny_agent(config=TINY)
    first.update(random_batch(seed=1))
    config = dataclasses.replace(TINY, lr=10 * TINY.lr)
    second = tiny_agent(config=config)
    second.load_state_dict(first.state_dict())
    second.update(random_batch(seed=2))
    optimizers = (second.learner.model_optimizer, second.learner.policy_optimizer)
    groups = [group for optimizer in optimizers for group in optimizer.param_groups]
    assert [g["lr"] for g in groups] == [config.lr * config.encoder_lr_scale, config.lr, config.lr]
    assert all(optimizer.state[p]["step"] == 2 for optimizer in optimizers for p in optimizer.state)
