from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from training_fixtures import AGENT, PLANNER, Countdown, comparable, run, spec, with_train

from memory_sink import MemorySink
from tdmpc_lab.agent import learner
from tdmpc_lab.config.loader import load_resolved
from tdmpc_lab.envs import make_env, training_seed
from tdmpc_lab.errors import EnvironmentSpecError, NonFiniteError, TrainingError
from tdmpc_lab.training import loop
from tdmpc_lab.training.build import Places, build_trainer, step_environment
from tdmpc_lab.training.checkpoints import CheckpointStore
from tdmpc_lab.training.loop import crossed, seed_steps_for
from tdmpc_lab.training.stop import StopFlag


def test_steps_updates_and_rows_add_up():
    trainer, result, rows = run(spec())
    assert result.step == trainer.step == 120
    assert result.stopped is None
    assert trainer.updates == 70 + 50  # as many as seed steps, then one a step
    episodes = [r for r in rows if "return" in r]
    assert [r["step"] for r in episodes] == [25, 50, 75, 100]
    assert all(r["episode_length"] == 25 and r["split"] == "train" for r in episodes)
    losses = [r for r in rows if "updates" in r]
    assert [r["step"] for r in losses] == [*range(20, 120, 20), 120]
    assert "loss/total" not in losses[0]  # nothing learned yet
    assert {"loss/consistency", "loss/reward", "loss/value", "loss/termination", "loss/policy"} <= losses[-1].keys()
    assert losses[-1]["replay/steps"] == 100


@pytest.mark.parametrize(("rate", "expected"), [(0.25, 70 + 12), (2.0, 70 + 100), (0.7, 70 + 35)])
def test_updates_per_step_may_be_fractions(rate, expected):
    trainer, _, _ = run(spec(updates_per_step=rate))
    assert trainer.updates == expected


def test_another_rate_on_resume_holds_from_there_on(tmp_path):
    store = CheckpointStore(tmp_path)
    a_spec = spec(checkpoint_every=100)
    run(with_train(a_spec, steps=100), places=Places(store))
    trainer = build_trainer(with_train(a_spec, updates_per_step=0.5), sink=MemorySink())
    trainer.load_state_dict(store.load_latest())
    trainer.run()
    assert trainer.updates == 70 + 30 + 10


def test_several_environments_share_the_steps():
    trainer, result, rows = run(spec(envs=4, steps=130, seed_steps=100))
    assert result.step == 130  # 32 rounds of four, one of two
    assert trainer.updates == 100 + 30
    lengths = {i: [r["episode_length"] for r in rows if r.get("env") == i] for i in range(4)}
    assert all(v == [25] for v in lengths.values())
    assert {r["step"] for r in rows if "return" in r} == {100}
    assert len({r["return"] for r in rows if "return" in r}) == 4  # four different episodes


def test_termination_and_truncation_reach_the_replay_apart():
    trainer, _, rows = run(spec("Countdown-v0", steps=130, seed_steps=110))
    ended = {r["episode_length"]: r["terminated"] for r in rows if "return" in r}
    assert ended[10] is False  # from 0 and 1 the time limit of 10 comes first
    assert ended[8] is True  # from 4 on the goal of 12 does
    batch = trainer.replay.sample(500)
    at_goal = batch.observations[1:, :, 0] >= Countdown().goal
    assert torch.equal(batch.terminated.bool(), at_goal)
    cut = batch.truncated.bool()
    assert cut.any()
    assert not (cut & at_goal).any()


def test_reward_scale_changes_what_is_learned_from_not_what_is_logged():
    plain, _, rows = run(spec(seed_steps=80, steps=85))
    a_spec = spec(seed_steps=80, steps=85)
    scaled, _, scaled_rows = run(dataclasses.replace(a_spec, reward=dataclasses.replace(a_spec.reward, scale=0.5)))
    returns = [[r["return"] for r in x if "return" in r] for x in (rows, scaled_rows)]
    assert returns[0][:3] == returns[1][:3]  # the random phase is the same, and reported raw
    torch.testing.assert_close(0.5 * plain.replay._rewards[:78], scaled.replay._rewards[:78])


def test_two_runs_are_the_same_to_the_last_bit():
    first, second = (run(spec(evaluate=True, envs=2)) for _ in range(2))
    assert comparable(first[2]) == comparable(second[2])
    weights = [t.agent.model.state_dict() for t in (first[0], second[0])]
    assert all(torch.equal(weights[0][k], weights[1][k]) for k in weights[0])
    other = run(spec(evaluate=True, envs=2, seed=2))
    assert comparable(other[2]) != comparable(first[2])


def test_evaluating_does_not_change_the_training():
    quiet, _, quiet_rows = run(spec())
    _, _, rows = run(spec(evaluate=True))
    figures, quiet_figures = ([r for r in x if "diag/value_bias" in r] for x in (rows, quiet_rows))
    assert [r["step"] for r in figures] == [90, 120]  # before every evaluation, once something was learned
    assert [r["step"] for r in quiet_figures] == [120]  # without any, with the checkpoints
    assert comparable(figures[1:]) == comparable(quiet_figures)
    assert comparable([r for r in rows if r["split"] == "train" and r not in figures]) == comparable(
        [r for r in quiet_rows if r not in quiet_figures]
    )
    evaluations = [r for r in rows if r["split"] == "eval"]
    assert [r["step"] for r in evaluations] == [*range(30, 120, 30), 120]
    assert all(r["episodes"] == 2 and r["length_mean"] == 25 for r in evaluations)
    assert evaluations[-1]["return_min"] <= evaluations[-1]["return_mean"] <= evaluations[-1]["return_max"]
    assert evaluations[-1]["policy_return_mean"] != evaluations[-1]["return_mean"]  # the same without planning
    assert quiet.updates


class StopAt:
    """Sets the flag when the given number of updates is reached, wherever in a step that is."""

    def __init__(self, trainer_updates):
        self.at = trainer_updates

    def attach(self, trainer, flag):
        original = trainer.agent.update

        def update(batch):
            if trainer.updates + 1 == self.at:
                flag.set("test")
            return original(batch)

        trainer.agent.update = update


@pytest.mark.parametrize("stops", [[1], [40, 72], [70, 71, 95, 96, 119]])
@pytest.mark.parametrize("env", ["Pendulum-v1", "Countdown-v0"])
def test_a_stopped_run_goes_on_as_if_nothing_had_happened(tmp_path, stops, env):
    """Stops between two updates of the warm-up, at its end and between steps; same rows, same weights."""
    a_spec = spec(env, evaluate=True, envs=2)
    straight, _, expected = run(a_spec)
    sink, store = MemorySink(), CheckpointStore(tmp_path)
    for attempt, at in enumerate([*stops, 10**9], start=1):
        flag = StopFlag()
        trainer = build_trainer(a_spec, sink=sink, places=Places(store), stop=flag, attempt=attempt)
        state = store.load_latest()
        if state is not None:
            trainer.load_state_dict(state)
        StopAt(at).attach(trainer, flag)
        result = trainer.run()
        assert result.stopped == (None if at == 10**9 else "test")
    assert comparable(sink.rows) == comparable(expected)
    weights = [t.agent.model.state_dict() for t in (straight, trainer)]
    assert all(torch.equal(weights[0][k], weights[1][k]) for k in weights[0])
    assert {r["attempt"] for r in sink.rows} <= set(range(1, len(stops) + 2))


SWITCHES = {
    "squashed entropy, encoder norm": {"entropy": "squashed", "encoder_norm": True},
    "no termination head": {"termination": False},
    "drawn by episode, over ends": {"replay_draw": "episode", "past_ends": True},
    "cloned": {"policy_prior": "cloned"},
    "planner": {"policy_prior": "planner"},
    "planner, over ends, three-step targets": {"policy_prior": "planner", "past_ends": True, "td_steps": 3},
    "mirrored": {"mirror": True, "policy_prior": "cloned"},
    "pessimism": {"pessimism": 0.5},
}


def with_switches(switches, **train):
    """A spec with them, four environments and episodes of many lengths."""
    sections = {"agent": AGENT, "planner": PLANNER, "train": spec("Tilted-v0", envs=4, **train).train}
    for name, value in switches.items():
        section = next(key for key, config in sections.items() if hasattr(config, name))
        sections[section] = dataclasses.replace(sections[section], **{name: value})
    return dataclasses.replace(spec("Tilted-v0", evaluate=True), **sections)


@pytest.fixture(scope="module")
def plain_weights():
    return run(with_switches({}))[0].agent.model.state_dict()


@pytest.mark.parametrize("switches", SWITCHES.values(), ids=SWITCHES)
def test_every_switch_survives_a_stop_in_mid_episode(tmp_path, switches, plain_weights, monkeypatch):
    """And changes what is learned: a switch that reaches nothing would survive too."""
    monkeypatch.setattr(learner, "PRIOR_FROM_SCALE", 0.5)  # which values this small would not reach for long
    a_spec = with_switches(switches)
    straight, _, expected = run(a_spec)
    sink, store = MemorySink(), CheckpointStore(tmp_path)
    for attempt, at in enumerate([75, 90, 10**9], start=1):
        flag = StopFlag()
        trainer = build_trainer(a_spec, sink=sink, places=Places(store), stop=flag, attempt=attempt)
        if (state := store.load_latest()) is not None:
            assert any(recorder["rewards"] for recorder in state["recorders"])
            trainer.load_state_dict(state)
        StopAt(at).attach(trainer, flag)
        trainer.run()
    assert comparable(sink.rows) == comparable(expected)
    weights = [t.agent.model.state_dict() for t in (straight, trainer)]
    assert all(torch.equal(weights[0][k], weights[1][k]) for k in weights[0])
    assert any(k not in weights[0] or not torch.equal(weights[0][k], plain_weights[k]) for k in plain_weights)
    replays = [t.replay.state_dict()["parts"] for t in (straight, trainer)]
    assert all(torch.equal(a[k], b[k]) for a, b in zip(*replays, strict=True) for k in a if k != "first")


def test_what_actions_were_planned_by_reaches_the_replay():
    """Random ones during the seed steps; then the plan's mean and deviation, of which the action is a draw."""
    trainer, _, _ = run(with_switches({"policy_prior": "planner"}, steps=200))
    (part,) = trainer.replay.state_dict()["parts"]
    rows = torch.cat([torch.arange(int(n)) + i for n, i in _starts(part["steps"])])
    random, mean, std = (part[name][rows] for name in ("random", "plan_mean", "plan_std"))
    assert 0 < random.sum() < len(random)
    assert (std[random] == 0).all()
    assert (std[~random] >= 0.05 - 1e-3).all()
    assert (std[~random] <= 2).all()
    # an action is an elite's plus noise: mostly near the mean by the deviation
    off = (part["actions"][rows] - mean.float()).abs()[~random] / std.float()[~random]
    assert off.median() < 1.5
    assert (mean[~random].abs().sum(-1) > 0).all()


def _starts(steps):
    begin = 0
    for n in steps:
        yield n, begin
        begin += int(n) + 1


def test_mirroring_needs_an_environment_that_declares_it():
    with pytest.raises(EnvironmentSpecError, match=r"train\.mirror is on, and 'Countdown-v0' declares no mirror"):
        build_trainer(spec("Countdown-v0", mirror=True), sink=MemorySink())
    with pytest.raises(EnvironmentSpecError, match=r"train\.mirror is on"):
        step_environment(spec("Countdown-v0", mirror=True), steps=1)
    assert step_environment(spec("Tilted-v0", mirror=True), steps=1) == 1


def test_a_job_of_before_the_switches_goes_on_as_it_would_have(tmp_path):
    """A job of the version before, stopped at step 110: what it had written when it was at 220, its weights' losses."""
    before = Path(__file__).parent / "job_before"
    old = [json.loads(line) for line in (before / "metrics.jsonl").read_text().splitlines()]
    shutil.copytree(before / "checkpoints", tmp_path / "checkpoints")
    sink = MemorySink()
    a_spec = load_resolved(before / "resolved.yaml")
    trainer = build_trainer(a_spec, sink=sink, places=Places(CheckpointStore(tmp_path / "checkpoints")))
    state = trainer.checkpoints.load_latest()
    state["counters"]["metrics_mark"] = 0
    trainer.load_state_dict(state)
    assert trainer.run().step == 220
    wanted = [row for row in old if row["step"] > 110 and "loss/total" in row]
    found = {row["step"]: row for row in sink.rows if "loss/total" in row}
    assert len(wanted) == 11
    for row in wanted[:4]:  # by then rounding, which differs between processors, has not grown
        for name, value in row.items():
            if name.startswith(("loss/", "policy/", "td_target", "updates", "replay/")):
                assert found[row["step"]][name] == pytest.approx(value, rel=2e-2, abs=1e-4), (row["step"], name)


@pytest.mark.parametrize("at", [90, 120])
def test_a_stop_during_an_evaluation_is_obeyed_and_the_evaluation_made_up_for(tmp_path, at):
    a_spec = spec(evaluate=True, checkpoint_every=30)
    _, _, expected = run(a_spec)
    sink, store, flag = MemorySink(), CheckpointStore(tmp_path), StopFlag()
    trainer = build_trainer(a_spec, sink=sink, places=Places(store), stop=flag)
    act, calls = trainer.agent.act, []

    def stopping(observations, state, *, explore, envs=None):
        if not explore and trainer.step == at:
            calls.append(1)
            if len(calls) == 5:
                flag.set("test")
        return act(observations, state, explore=explore, envs=envs)

    trainer.agent.act = stopping
    assert trainer.run().stopped == "test"
    assert len(calls) == 5  # not one more step of the evaluation
    assert trainer.step == at
    second = build_trainer(a_spec, sink=sink, places=Places(store), attempt=2)
    second.load_state_dict(store.load_latest())
    second.run()
    assert comparable(sink.rows) == comparable(expected)


def test_rows_after_the_checkpoint_are_made_again_not_doubled(tmp_path):
    """A job killed some steps after its checkpoint: the file holds every row once."""
    a_spec = spec(checkpoint_every=100, log_every=5)
    _, _, expected = run(a_spec)
    sink = MemorySink()
    trainer = build_trainer(a_spec, sink=sink, places=Places(CheckpointStore(tmp_path)))

    def killed(batch):
        if trainer.step == 113:
            raise KeyboardInterrupt
        return original(batch)

    original, trainer.agent.update = trainer.agent.update, killed
    with pytest.raises(KeyboardInterrupt):
        trainer.run()
    assert sink.rows[-1]["step"] == 110
    second = build_trainer(a_spec, sink=sink, places=Places(CheckpointStore(tmp_path)), attempt=2)
    second.load_state_dict(CheckpointStore(tmp_path).load_latest())
    assert second.step == 100
    second.run()
    assert comparable(sink.rows) == comparable(expected)


def test_nan_in_a_loss_stops_with_step_term_and_checkpoint(tmp_path):
    store = CheckpointStore(tmp_path)
    a_spec = spec(checkpoint_every=80)
    trainer = build_trainer(a_spec, sink=MemorySink(), places=Places(store))
    original = trainer.agent.learner.update

    def poisoned(batch):
        losses = original(batch)
        if trainer.step >= 85:
            losses["loss/value"] = losses["loss/value"] * float("nan")
        return losses

    trainer.agent.learner.update = poisoned
    with pytest.raises(NonFiniteError, match=r"step 85 in loss/value; last good checkpoint: step_000000080\.pt"):
        trainer.run()
    assert [p.name for p in store.paths()] == ["step_000000080.pt"]


def test_diverging_weights_are_caught_before_a_checkpoint(tmp_path):
    """A learning rate of 1e20 for real: nothing broken may be saved, whatever notices it first."""
    a_spec = spec(agent=dataclasses.replace(AGENT, lr=1e20), checkpoint_every=1)
    store = CheckpointStore(tmp_path)
    with pytest.raises(NonFiniteError, match=r"NaN|last good checkpoint"):
        run(a_spec, places=Places(store))
    for path in store.paths():
        state = torch.load(path, weights_only=True)
        assert all(v.isfinite().all() for v in state["agent"]["model"].values() if v.is_floating_point())


def test_nothing_learned_is_an_error_not_a_quiet_end():
    events = []
    with pytest.raises(TrainingError, match="no update was made"):
        run(
            spec("Countdown-v0", agent=dataclasses.replace(AGENT, horizon=11), seed_steps=20, steps=60),
            on_event=lambda kind, fields: events.append((kind, fields)),
        )
    warnings = [f["message"] for k, f in events if k == "warning"]
    assert len(warnings) == 1
    assert "horizon (11 steps)" in warnings[0]


def test_a_hopeless_run_does_not_go_on_for_days(monkeypatch):
    monkeypatch.setattr(loop, "HOPELESS_STEPS", 100)
    agent = dataclasses.replace(AGENT, horizon=11)
    with pytest.raises(TrainingError, match=r"nothing could be learned by step 11\d"):
        run(spec("Countdown-v0", agent=agent, seed_steps=10, steps=100_000, replay_capacity=50_000))


def test_an_environment_that_fails_is_named():
    a_spec = spec("Countdown-v0")
    trainer = build_trainer(a_spec, sink=MemorySink())
    trainer.envs._envs[0]._env.unwrapped.step = lambda action: 1 / 0
    with pytest.raises(TrainingError, match=r"Countdown-v0.*ZeroDivisionError"):
        trainer.run()


def test_seed_steps_default():
    config = spec(seed_steps=None, steps=100_000).train
    assert seed_steps_for(config, 200) == 1000
    assert seed_steps_for(config, 1000) == 5000
    assert seed_steps_for(spec(seed_steps=None, steps=300).train, 200) == 300


def test_crossed():
    assert crossed(0, 4, 4)
    assert crossed(3, 7, 5)
    assert not crossed(4, 7, 4)
    assert crossed(0, 100, 30)


def test_random_phase_covers_the_action_space():
    trainer = build_trainer(spec(), sink=MemorySink())
    trainer.envs.reset_all()
    drawn = np.concatenate([trainer._actions(1)[0] for _ in range(500)])
    assert drawn.min() < -0.95
    assert drawn.max() > 0.95
    assert abs(drawn.mean()) < 0.1


@pytest.mark.parametrize("envs", [1, 3])
def test_every_episode_in_the_replay_is_what_the_environment_gave(envs):
    """Observation by observation, the first ones of the first episodes too; played again from seeds and actions."""
    a_spec = spec("Countdown-v0", envs=envs, steps=120)
    trainer, _, rows = run(a_spec)
    replay = trainer.replay
    assert len(replay._episodes) == sum("episode_length" in row for row in rows) > 3 * envs
    played = dict.fromkeys(range(envs), 0)
    for (start, steps), row in zip(replay._episodes, [r for r in rows if "episode_length" in r], strict=True):
        env = make_env(a_spec.env)
        expected = [env.reset(training_seed(a_spec.train.seed, row["env"], played[row["env"]]))]
        expected += [env.step(action).obs for action in replay._actions[start : start + steps].numpy()]
        assert replay._observations[start : start + steps + 1].tolist() == np.stack(expected).tolist()
        played[row["env"]] += 1
        env.close()
