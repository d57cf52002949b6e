from __future__ import annotations

import numpy as np
import pytest
import torch
from agent_fixtures import TINY, observations, perturbed, tiny_model
from numpy_reference import Reference
from torch import Generator

from tdmpc_lab.agent.networks import QEnsemble, QFunction, SimNorm, dropped_entries, init_weights
from tdmpc_lab.agent.world_model import WorldModel, parameter_counts
from tdmpc_lab.config.schema import AgentConfig

REFERENCE_COUNTS = {
    "encoder": 1_063_424,
    "dynamics": 1_582_592,
    "reward": 1_107_045,
    "termination": 328_449,
    "q": 5_535_225,
    "q_target": 0,
    "policy": 1_057_288,
    "world_model": 9_616_735,
    "total": 10_674_023,
}


def test_parameter_counts_at_the_reference_size():
    with torch.device("meta"):
        model = WorldModel(18, 4, AgentConfig())
    assert parameter_counts(model) == REFERENCE_COUNTS


def test_simnorm_groups_sum_to_one():
    x = 5 * torch.randn(3, 4, 32, generator=Generator().manual_seed(0))
    y = SimNorm(8)(x)
    assert y.shape == x.shape
    torch.testing.assert_close(y.unflatten(-1, (4, 8)).sum(-1), torch.ones(3, 4, 4))
    by_hand = torch.softmax(x[1, 2, 8:16], 0)
    torch.testing.assert_close(y[1, 2, 8:16], by_hand)


def test_every_part_equals_the_slow_reference():
    model = perturbed(tiny_model())
    reference = Reference(model, TINY)
    rng = np.random.default_rng(3)
    obs = rng.normal(size=5)
    action = rng.uniform(-1, 1, 2)
    with torch.no_grad():
        z = model.encoder(torch.tensor(obs, dtype=torch.float32))
        a = torch.tensor(action, dtype=torch.float32)
        ours = {
            "z": z,
            "next": model.dynamics(z, a),
            "reward": model.reward(z, a),
            "termination": model.termination(z),
            "q": model.q(z, a),
            "target": model.q_target(z, a),
            "decoded": model.predict_reward(z, a),
        }
    zr = reference.encode(obs)
    theirs = {
        "z": zr,
        "next": reference.dynamics(zr, action),
        "reward": reference.reward_logits(zr, action),
        "termination": reference.termination_logit(zr),
        "q": np.stack([reference.q_logits(zr, action, h) for h in range(TINY.q_heads)]),
        "target": np.stack([reference.q_logits(zr, action, h, "q_target") for h in range(TINY.q_heads)]),
        "decoded": reference.decode(reference.reward_logits(zr, action)),
    }
    for name, value in ours.items():
        np.testing.assert_allclose(value.numpy(), theirs[name], rtol=1e-4, atol=1e-5, err_msg=name)


def test_ensemble_equals_its_members():
    generator = Generator().manual_seed(0)
    functions = [QFunction(16, 2, 12, 2, 11, 0.3).eval() for _ in range(3)]
    for f in functions:
        init_weights(f, generator)
    ensemble = QEnsemble(functions)
    z, a = torch.rand(4, 6, 16, generator=generator), torch.rand(4, 6, 2, generator=generator)
    expected = torch.stack([f(z, a) for f in functions])
    torch.testing.assert_close(ensemble(z, a), expected)
    chosen = torch.tensor([2, 0])
    torch.testing.assert_close(ensemble(z, a, heads=chosen), expected[chosen])


def test_initialisation_of_every_member():
    """The ensemble bug that upstream had for 21 months: members without the initialisation, or all alike."""
    model = WorldModel(18, 4, AgentConfig(), seed=5)
    for i, weight in enumerate(model.q.weights[:-1]):
        for head in weight:
            assert head.std().item() == pytest.approx(0.02, rel=0.03), f"layer {i}"
        assert not torch.equal(weight[0], weight[1])
    assert torch.count_nonzero(model.q.weights[-1]) == 0
    assert torch.count_nonzero(model.reward.net[-1].weight) == 0
    assert all(torch.count_nonzero(b) == 0 for b in model.q.biases)
    assert model.encoder.net[0].weight.std().item() == pytest.approx(0.02, rel=0.03)
    assert model.policy.mean_head.weight.std().item() == pytest.approx(0.02, rel=0.1)
    for target, online in zip(model.q_target.parameters(), model.q.parameters(), strict=True):
        assert torch.equal(target, online)
        assert not target.requires_grad


def test_the_seed_fixes_the_weights_and_leaves_global_random_state_out_of_it():
    torch.manual_seed(1)
    first = tiny_model(seed=3).state_dict()
    torch.manual_seed(2)
    second, other = tiny_model(seed=3).state_dict(), tiny_model(seed=4).state_dict()
    assert all(torch.equal(first[k], second[k]) for k in first)
    assert not torch.equal(first["encoder.net.0.weight"], other["encoder.net.0.weight"])


def test_target_moves_by_exactly_tau():
    model = perturbed(tiny_model())
    before = [p.clone() for p in model.q_target.parameters()]
    with torch.no_grad():
        for p in model.q.parameters():
            p.add_(1.0)
    online = [p.clone() for p in model.q.parameters()]
    model.update_target(0.01)
    for old, new, now in zip(before, online, model.q_target.parameters(), strict=True):
        torch.testing.assert_close(now, old + 0.01 * (new - old), rtol=0, atol=1e-7)
    assert all(torch.equal(a, b) for a, b in zip(online, model.q.parameters(), strict=True))


def test_two_heads_are_different_and_all_are_drawn():
    model = tiny_model()
    generator = Generator().manual_seed(0)
    pairs = [tuple(sorted(model.two_heads(generator).tolist())) for _ in range(200)]
    assert all(a != b for a, b in pairs)
    assert set(pairs) == {(a, b) for a in range(5) for b in range(a + 1, 5)}


def test_dropout_only_where_entries_are_given_and_at_its_rate():
    config = AgentConfig(latent_dim=16, hidden_dim=400, hidden_layers=1, bins=5, dropout=0.25)
    model = perturbed(WorldModel(5, 2, config, seed=0))
    z = model.encoder(observations(3, 5))
    a = torch.zeros(3, 2)
    assert torch.equal(model.q(z, a), model.q(z, a))

    def dropped(seed):
        return dropped_entries((5, 3, 400), 0.25, Generator().manual_seed(seed))

    one = model.q(z, a, dropped=dropped(1))
    assert not torch.equal(one, model.q(z, a))
    assert torch.equal(one, model.q(z, a, dropped=dropped(1)))
    mask = torch.zeros(5 * 3 * 400, dtype=torch.bool).index_fill(0, dropped(1), True).view(5, 3, 400)
    assert torch.equal(one, model.q(z, a, dropped=mask)), "positions, as on a CPU, and masks mean the same"
    # E[dropout(h)] = h: averaged over many masks the hidden layer's linear read-out comes back
    many = torch.stack([model.q(z, a, dropped=dropped(k)) for k in range(400)])
    mean, spread = many.mean(0), many.std(0)
    assert spread.mean() > 0
    # Mish bends the mean a little; the bound is far below one mask's spread
    assert (mean - model.q(z, a)).abs().mean() < 0.5 * spread.mean()
