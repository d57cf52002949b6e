from __future__ import annotations

import numpy as np
import pytest
import torch
from agent_fixtures import TINY, TINY_PLANNER, observations, perturbed, tiny_model
from numpy_reference import Reference
from torch import Generator

from tdmpc_lab.agent.packed_rollouts import PackedRollouts
from tdmpc_lab.agent.planner import MPPI, planner_iterations
from tdmpc_lab.agent.rollouts import ModelRollouts
from tdmpc_lab.config.schema import PlannerConfig


class PointModel:
    """A known toy world: z is a position in the plane, an action moves it by 0.2·a, reward is −|z|² after each step."""

    def __init__(self, done_when_x_above: float = float("inf")) -> None:
        self.limit = done_when_x_above
        self.action_dim = 2
        self.policy = self.q = self
        self.head = "squashed_gaussian"
        self.heads = 2

    def dynamics(self, z, a):
        return z + 0.2 * a

    def predict_reward(self, z, a):
        return -(z + 0.2 * a).square().sum(-1)

    def termination(self, z):
        return z[..., 0] - self.limit

    def __call__(self, z):
        return torch.zeros_like(z), torch.full_like(z, -50.0)  # the policy: stand still

    def q_values(self, z, a, heads):
        return -(z.square().sum(-1)).expand(2, *z.shape[:-1])


def rollouts(mppi, model):
    return ModelRollouts(model, horizon=mppi.horizon, discount=mppi.discount)


def point_value(mppi, model, z, actions):
    noise = torch.zeros(*actions.shape[:2], 2)
    subject = rollouts(mppi, model)
    return mppi.sequence_value(subject, subject.roll(subject.start(z), actions), noise, torch.tensor([0, 1]))


@pytest.mark.parametrize("form", [ModelRollouts, PackedRollouts])
def test_sequence_value_equals_the_slow_reference(form):
    model = perturbed(tiny_model())
    obs = observations(2, 5)
    actions = 2 * torch.rand(2, 20, 3, 2, generator=Generator().manual_seed(4)) - 1
    with torch.no_grad():  # make the termination head fire for some sequences and not for others
        first = model.dynamics(model.encoder(obs).unsqueeze(1).expand(-1, 20, -1), actions[:, :, 0])
        model.termination.mlp[-1].bias -= model.termination(first).median()
    reference = Reference(model, TINY)
    mppi = MPPI(TINY_PLANNER, horizon=3, discount=0.9)
    eps = torch.randn(2, 20, 2, generator=Generator().manual_seed(5))
    heads = torch.tensor([3, 1])
    with torch.no_grad():
        subject = form(model, horizon=3, discount=0.9)
        rolled = subject.roll(subject.start(model.encoder(obs)), actions)
        ours = mppi.sequence_value(subject, rolled, eps, heads).numpy()
    eps, heads = eps.double().numpy(), heads.tolist()
    done = 0
    for e in range(2):
        for s in range(20):
            expected = reference.sequence_value(
                obs[e].double().numpy(), actions[e, s].double().numpy(), 0.9, heads, eps[e, s]
            )
            np.testing.assert_allclose(ours[e, s], expected, rtol=2e-3, atol=1e-4)
            z = reference.encode(obs[e].double().numpy())
            for a in actions[e, s].double().numpy():
                z = reference.dynamics(z, a)
                done += reference.termination_logit(z) > 0
    assert 0 < done < 120  # the case distinguishes a planner that ignores termination


def test_termination_stops_reward_and_terminal_value_by_hand():
    mppi = MPPI(PlannerConfig(samples=2, elites=1, policy_trajectories=1), horizon=2, discount=0.5)
    model = PointModel(done_when_x_above=0.1)
    z = torch.zeros(1, 2)
    actions = torch.tensor([[[[1.0, 0.0], [1.0, 0.0]], [[0.0, 1.0], [0.0, 1.0]]]])  # (1, 2, 2, 2)
    value = point_value(mppi, model, z, actions)
    # sequence 0 reaches x = 0.2 after one step and is done: only r_0 = −0.04
    # sequence 1 moves up and lives on: −0.04 − 0.5·0.16 − 0.25·0.16
    torch.testing.assert_close(value, torch.tensor([[-0.04, -0.04 - 0.08 - 0.04]]))


def test_beats_random_shooting_on_a_known_model():
    """Same model, same number of valued sequences: refining must come closer to the goal."""
    model = PointModel()
    config = PlannerConfig(samples=64, iterations=6, elites=8, policy_trajectories=4)
    mppi = MPPI(config, horizon=5, discount=1.0)
    generator = Generator().manual_seed(0)
    starts = 2 * torch.rand(32, 2, generator=generator) - 1
    planned, shot = starts.clone(), starts.clone()
    mean = torch.zeros(32, 5, 2)
    total = torch.zeros(2)
    for _ in range(8):
        plan = mppi.plan(rollouts(mppi, model), planned, mean, explore=False, generator=generator)
        mean = plan.mean
        planned = model.dynamics(planned, plan.action)
        candidates = 2 * torch.rand(32, 64 * 6, 5, 2, generator=generator) - 1
        best = point_value(mppi, model, shot, candidates).argmax(1)
        shot = model.dynamics(shot, candidates[torch.arange(32), best, 0])
        total += torch.stack([planned.square().sum(-1).mean(), shot.square().sum(-1).mean()])
    assert total[0] < 0.9 * total[1], total
    assert planned.norm(dim=-1).max() < 0.2


def test_respects_bounds_shapes_and_std_limits():
    model = perturbed(tiny_model(), scale=2.0)
    mppi = MPPI(TINY_PLANNER, horizon=3, discount=0.9)
    z = model.encoder(observations(7, 5)).detach()
    subject = PackedRollouts(model, horizon=3, discount=0.9)
    for explore in (True, False):
        plan = mppi.plan(subject, z, torch.zeros(7, 3, 2), explore=explore, generator=Generator().manual_seed(0))
        assert plan.action.shape == (7, 2)
        assert plan.mean.shape == plan.std.shape == (7, 3, 2)
        assert plan.action.abs().max() <= 1
        assert plan.mean.abs().max() <= 1
        assert plan.std.min() >= 0.05
        assert plan.std.max() <= 2
        assert plan.nan_values.sum() == 0


def test_warm_start_is_the_last_plan_shifted_by_one():
    """One iteration's candidates are mean + std · noise: what was rolled tells both."""
    seen = []

    class Watching(ModelRollouts):
        def roll(self, start, actions):
            seen.append(actions)
            return super().roll(start, actions)

    config = PlannerConfig(samples=4, iterations=1, elites=2, policy_trajectories=0, std_max=0.1)
    mppi = MPPI(config, horizon=3, discount=0.9)
    subject = Watching(PointModel(), horizon=3, discount=0.9)
    previous = torch.tensor([[[0.1, 0.2], [0.3, 0.4], [0.5, 0.6]]])
    draws = mppi.draw(1, 2, 2, Generator().manual_seed(0))
    mppi.search(subject, torch.zeros(1, 2), previous, draws, explore=False)
    shifted = torch.tensor([[0.3, 0.4], [0.5, 0.6], [0.0, 0.0]])
    torch.testing.assert_close(seen[0], (shifted + 0.1 * draws.candidates[0]).clamp(-1, 1))


def test_refit_by_hand():
    mppi = MPPI(TINY_PLANNER, horizon=1, discount=0.9)
    elites = torch.tensor([[[[1.0]], [[-1.0]]]])  # (E 1, K 2, H 1, A 1)
    mean, std = mppi._refit(elites, torch.tensor([[0.75, 0.25]]))
    assert mean.item() == pytest.approx(0.5)
    assert std.item() == pytest.approx(np.sqrt(0.75 * 0.25 + 0.25 * 2.25))
    _, narrow = mppi._refit(torch.ones(1, 2, 1, 1), torch.tensor([[0.5, 0.5]]))
    assert narrow.item() == pytest.approx(0.05)


def test_environments_in_a_batch_do_not_touch_each_other():
    """Each start has its own goal side; a mixed-up batch would steer the wrong way."""
    mppi = MPPI(PlannerConfig(samples=256, iterations=6, elites=32, policy_trajectories=8), horizon=3, discount=1.0)
    starts = torch.tensor([[0.9, 0.0], [-0.9, 0.0], [0.0, 0.9], [0.0, -0.9]])
    subject = rollouts(mppi, PointModel())
    plan = mppi.plan(subject, starts, torch.zeros(4, 3, 2), explore=False, generator=Generator().manual_seed(1))
    assert plan.action[0, 0] < -0.8
    assert plan.action[1, 0] > 0.8
    assert plan.action[2, 1] < -0.8
    assert plan.action[3, 1] > 0.8


def test_nan_values_count_as_zero_and_are_reported():
    class Broken(PointModel):
        def predict_reward(self, z, a):
            return torch.where(a[..., 0] > 0, torch.nan, -1.0)

    mppi = MPPI(TINY_PLANNER, horizon=2, discount=1.0)
    subject = rollouts(mppi, Broken())
    plan = mppi.plan(
        subject, torch.zeros(1, 2), torch.zeros(1, 2, 2), explore=False, generator=Generator().manual_seed(0)
    )
    assert plan.nan_values.sum() > 0
    assert plan.action.isfinite().all()
    assert plan.value.item() == 0.0


def test_exploration_noise_only_when_asked():
    model = PointModel()
    mppi = MPPI(
        PlannerConfig(samples=64, iterations=1, elites=8, policy_trajectories=0, std_min=0.5),
        horizon=2,
        discount=1.0,
    )
    z, mean = torch.zeros(1, 2), torch.zeros(1, 2, 2)
    subject = rollouts(mppi, model)
    quiet = mppi.plan(subject, z, mean, explore=False, generator=Generator().manual_seed(3))
    loud = mppi.plan(subject, z, mean, explore=True, generator=Generator().manual_seed(3))
    torch.testing.assert_close(quiet.mean, loud.mean)
    assert not torch.equal(quiet.action, loud.action)


def test_wide_actions_get_two_more_iterations():
    assert planner_iterations(PlannerConfig(iterations=6), 19) == 6
    assert planner_iterations(PlannerConfig(iterations=6), 20) == 8
