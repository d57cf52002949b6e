"""Whole trainings of laser hockey: rewards in the replay, phases, the pool of past copies, resuming in the middle."""

from __future__ import annotations

import contextlib
import dataclasses
from pathlib import Path

import numpy as np
import pytest
from training_fixtures import comparable, run, with_train

from memory_sink import MemorySink
from tdmpc_lab.config.loader import spec_from_dict
from tdmpc_lab.config.schema import Spec
from tdmpc_lab.envs import EpisodeSetting
from tdmpc_lab.errors import AttemptLostError, EnvironmentSpecError
from tdmpc_lab.training.build import Places, build_trainer
from tdmpc_lab.training.checkpoints import CheckpointStore, load_checkpoint, load_training
from tdmpc_lab.training.load import load_agent
from tdmpc_lab.training.stop import StopFlag

AGENT = {
    "latent_dim": 16,
    "hidden_dim": 16,
    "hidden_layers": 1,
    "termination_dim": 8,
    "horizon": 3,
    "q_heads": 2,
    "bins": 21,
}
PLANNER = {"samples": 4, "iterations": 1, "elites": 2, "policy_trajectories": 1}


def hockey(**sections) -> Spec:
    train = {"steps": 240, "envs": 2, "seed_steps": 120, "batch_size": 4, "log_every": 60, "threads": 1}
    return spec_from_dict(
        {
            "name": "test",
            "env": {"id": "hockey", "max_episode_steps": 30, **sections.pop("env", {})},
            "agent": AGENT,
            "planner": PLANNER,
            "train": {**train, "device": "cpu", **sections.pop("train", {})},
            "eval": sections.pop("eval", False),
            **sections,
        }
    )


def episodes(rows):
    return [row for row in rows if "episode_length" in row]


def test_rewards_reach_the_replay_and_the_metrics_apart():
    shaping = {"closeness": 2, "touch": 3, "direction": 5, "hold": 0, "ramp": 0}
    spec = hockey(reward={"scale": 2, "shaping": shaping, "backprop": True}, train={"seed_steps": 200})
    trainer, _, rows = run(spec)
    plain_trainer, _, plain_rows = run(hockey(train={"seed_steps": 200}))
    assert len(episodes(rows)) == len(episodes(plain_rows)) > 6
    for shaped, plain in zip(episodes(rows), episodes(plain_rows), strict=True):
        if shaped["step"] <= 200:  # random play
            assert shaped["return"] == plain["return"]  # the raw one, whatever is learned from
        assert shaped["opponent"] == "weak" and shaped["winner"] in (-1, 0, 1)
        assert shaped["shaping_closeness"] == 2 and shaped["backprop_bonus"] == 10
        assert (shaped["return_backprop"] > shaped["return_shaped"]) == (shaped["winner"] == 1)
        assert "return_shaped" not in plain
    assert any(row["return_shaped"] != row["return"] for row in episodes(rows))
    # What is learned from is the sum of the rows, doubled.
    assert trainer.replay.episodes_added == len(episodes(rows))
    total = float(trainer.replay._rewards.sum())
    assert total == pytest.approx(2 * sum(row["return_backprop"] for row in episodes(rows)), rel=1e-4)
    assert float(plain_trainer.replay._rewards.sum()) == pytest.approx(
        sum(row["return"] for row in episodes(plain_rows)), rel=1e-4
    )


def test_ramps_count_finished_episodes():
    spec = hockey(reward={"backprop": {"bonus": {"start": 8, "final": 0}, "ramp": 4}}, train={"envs": 1})
    _, _, rows = run(spec)
    assert [row["backprop_bonus"] for row in episodes(rows)] == [8, 6, 4, 2, 0, 0, 0, 0][: len(episodes(rows))]


def test_phases_change_opponent_and_reward_and_are_told():
    events = []
    spec = hockey(
        reward={"backprop": {"bonus": {"start": 8, "final": 0}, "ramp": 4}},
        phases=[
            {"steps": 60, "opponent": "weak"},
            {"steps": 90, "env": {"opponent": "strong"}},
            {"opponent": "none", "reward": {"backprop": {"bonus": {"start": 6}}}},
        ],
        train={"envs": 1},
    )
    _, _, rows = run(spec, on_event=lambda kind, fields: events.append((kind, dict(fields))))
    # Episodes of 30 steps: two begin in the first phase, three in the second.
    assert [(row["phase"], row["opponent"]) for row in episodes(rows)] == [
        (1, "weak"), (1, "weak"), (2, "strong"), (2, "strong"), (2, "strong"), (3, "none"), (3, "none"), (3, "none"),
    ]  # fmt: skip
    # The same reward continues with its ramp, another one begins its own.
    assert [row["backprop_bonus"] for row in episodes(rows)] == [8, 6, 4, 2, 0, 6, 4.5, 3]
    told = [fields for kind, fields in events if kind == "phase"]
    assert [(fields["phase"], fields["step"]) for fields in told] == [(1, 0), (2, 60), (3, 150)]
    assert told[1]["changes"] == ["env.opponent weak → strong"]  # against the phase before
    assert [row["phase"] for row in rows if row.keys() & {"phase"} and "episode_length" not in row] == [1, 2, 3]


def test_an_episode_stays_in_the_phase_it_began_in():
    spec = hockey(phases=[{"steps": 70, "opponent": "weak"}, {"opponent": "strong"}], train={"envs": 1})
    _, _, rows = run(spec)
    assert [row["phase"] for row in episodes(rows)][:4] == [1, 1, 1, 2]


def self_play(**sections) -> Spec:
    env = {"opponent": {"self": 1}, "self_play": {"from_step": 120, "every": 30, "size": 2}}
    return hockey(env=env, **sections)


def test_the_agent_meets_its_past_copies(tmp_path: Path):
    events = []
    spec = self_play(train={"envs": 1})
    trainer, _, rows = run(
        spec, places=Places(pool=tmp_path), on_event=lambda kind, fields: events.append((kind, dict(fields)))
    )
    copies = [fields["step"] for kind, fields in events if kind == "self_play_copy"]
    assert copies == [120, 150, 180, 210, 240]
    opponents = [row["opponent"] for row in episodes(rows)]
    assert opponents[:5] == ["weak"] * 5  # until the first copy somebody else plays: the fifth began at step 120
    assert set(opponents[5:]) == {"self"}
    # Nothing was saved to continue from, so nothing tells which copies are not needed any more.
    assert [path.name for path in sorted(tmp_path.iterdir())] == [f"copy_00000{n}.pt" for n in (1, 2, 3, 4, 5)]
    assert trainer.curriculum.setting == EpisodeSetting(0, 5)


@pytest.mark.parametrize(("every", "kill_at", "newest"), [(10, 190, 1), (10, 190, 2), (25, 238, 1)])
def test_a_killed_training_finds_the_copies_its_checkpoint_asks_for(
    tmp_path: Path, every: int, kill_at: int, newest: int
):
    """Many copies between two checkpoints, and several within one episode of 30 steps."""
    spec = self_play(train={"checkpoint_every": 60})
    pool = dataclasses.replace(spec.env.self_play, every=every)
    spec = dataclasses.replace(spec, env=dataclasses.replace(spec.env, self_play=pool))
    _, _, whole = run(spec, places=Places(CheckpointStore(tmp_path / "a"), pool=tmp_path / "pool_a"))

    class KilledError(Exception):
        pass

    def kill(row):
        if row["step"] >= kill_at:
            raise KilledError

    sink, store, events = MemorySink(), CheckpointStore(tmp_path / "b"), []
    places = Places(store, pool=tmp_path / "pool_b")
    with pytest.raises(KilledError):
        build_trainer(spec, sink=sink, places=places, observe=kill).run()
    second = build_trainer(spec, sink=sink, places=places, attempt=2, on_event=lambda kind, fields: events.append(kind))
    second.load_state_dict(load_training(store.paths()[-newest]))  # the one before, where the last is torn
    second.run()
    assert "episode_dropped" not in events
    assert comparable(sink.rows) == comparable(whole)
    kept = sorted(path.name for path in (tmp_path / "pool_b").iterdir())
    assert kept == sorted(path.name for path in (tmp_path / "pool_a").iterdir())
    assert len(kept) < second.curriculum.setting.copies  # old ones do leave


def test_phases_of_different_lengths_have_one_discount(tmp_path: Path):
    """The longest phase counts, for the training and for whoever loads the agent later."""
    spec = hockey(
        env={"max_episode_steps": None},
        phases=[{"steps": 120, "env": {"options": {"mode": "TRAIN_SHOOTING"}}}, {}],
        train={"steps": 340, "seed_steps": 300, "envs": 1},
    )
    store = CheckpointStore(tmp_path)
    trainer, _, _ = run(spec, places=Places(store))
    loaded = load_agent(store.paths()[-1], device="cpu")
    assert trainer.agent.discount == loaded.agent.discount == pytest.approx((251 / 5 - 1) / (251 / 5))


def test_nobody_is_evaluated_against_twice():
    spec = hockey(eval={"every": 240, "episodes": 2, "opponents": ["weak", "strong", "weak"]})
    trainer = build_trainer(spec, sink=MemorySink())
    evaluation = trainer.evaluator.run(trainer.agent)
    assert len(evaluation.episodes) == 4 and evaluation.opponents == ["weak", "strong"]


def test_self_play_without_a_folder_is_refused():
    trainer, result, _ = run(with_train(self_play(), steps=130))
    assert result.step == 130 and trainer.curriculum.pool is None  # nobody asks for a copy
    with pytest.raises(EnvironmentSpecError, match="no folder"):
        trainer.envs._make(EpisodeSetting(0, 1))


@pytest.mark.parametrize("stop_at", [40, 126, 167, 215])
def test_a_stopped_training_goes_on_to_the_last_bit(tmp_path: Path, stop_at: int):
    """Phases, ramps, the pool and mixtures: rows after resuming are those of a run that was never stopped."""
    phases = [{"steps": 100, "opponent": {"weak": 1, "random": 1}}, {"reward": {"shaping": True}}]
    spec = self_play(
        reward={"backprop": {"bonus": {"start": 8, "final": 0}, "ramp": 6}},
        phases=phases,
        eval={"every": 120, "episodes": 2},
    )
    _, _, whole = run(spec, places=Places(CheckpointStore(tmp_path / "a"), pool=tmp_path / "pool_a"))
    sink, flag = MemorySink(), StopFlag()

    def stop_there(row):
        if row["step"] >= stop_at:
            flag.set("test")

    store = CheckpointStore(tmp_path / "b")
    places = Places(store, pool=tmp_path / "pool_b")
    build_trainer(spec, sink=sink, places=places, stop=flag, observe=stop_there).run()
    events = []
    second = build_trainer(spec, sink=sink, places=places, attempt=2, on_event=lambda kind, fields: events.append(kind))
    second.load_state_dict(store.load_latest())
    second.run()
    assert "episode_dropped" not in events
    assert comparable(sink.rows) == comparable(whole)
    # One checkpoint more was written, so that old copies could go; the pool itself is the same.
    pools = [sorted(path.name for path in (tmp_path / name).iterdir()) for name in ("pool_a", "pool_b")]
    assert pools[0][-2:] == pools[1][-2:]


def test_evaluation_is_against_everybody_from_both_sides():
    spec = hockey(
        env={"opponent": {"weak": 1, "strong": 1}},
        phases=[{"steps": 60, "opponent": "random"}, {}],
        eval={"every": 240, "episodes": 4},
    )
    trainer, _, rows = run(spec)
    evaluation = trainer.evaluator.run(trainer.agent)
    assert evaluation.opponents == ["random", "weak", "strong"]
    assert len(evaluation.episodes) == 12
    for name in evaluation.opponents:
        part = evaluation.against(name)
        assert [e.agent_started for e in part.episodes] == [True, True, False, False]
        assert len({e.seed for e in part.episodes}) == 4
    (row,) = [row for row in rows if row["split"] == "eval"]
    assert row["episodes"] == 12
    for name in ("random", "weak", "strong"):
        assert row[f"win_{name}"] + row[f"draw_{name}"] + row[f"loss_{name}"] == pytest.approx(1)
        assert row[f"win_low_{name}"] <= row[f"win_{name}"] <= row[f"win_high_{name}"]
    assert row["win"] == pytest.approx(np.mean([row[f"win_{name}"] for name in ("random", "weak", "strong")]))


def test_evaluation_reports_the_raw_return():
    """The same agent plays the same games, whatever the training made of the rewards."""
    config = {"every": 240, "episodes": 4}
    plain = build_trainer(hockey(eval=config), sink=MemorySink())
    shaped_spec = hockey(eval=config, reward={"shaping": True, "backprop": True, "scale": 3})
    shaped = build_trainer(shaped_spec, sink=MemorySink())
    assert plain.evaluator.run(plain.agent) == shaped.evaluator.run(plain.agent)


def test_a_video_is_made_every_so_often(tmp_path: Path):
    events = []
    spec = hockey(eval={"every": 60, "episodes": 2, "video_every": 120})
    run(spec, places=Places(videos=tmp_path), on_event=lambda kind, fields: events.append((kind, dict(fields))))
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["step_000000120.mp4", "step_000000240.mp4"]
    videos = [fields for kind, fields in events if kind == "video"]
    assert [fields["step"] for fields in videos] == [120, 240] and "against weak" in videos[0]["of"]


def test_pool_and_videos_change_only_while_the_guard_lets_them(tmp_path: Path):
    """A process whose job another one has taken over writes no copies and no videos any more."""
    spec = self_play(train={"envs": 1}, eval={"every": 60, "episodes": 2, "video_every": 60})

    @contextlib.contextmanager
    def guard():
        if trainer.step >= 200:
            raise AttemptLostError("attempt 2 has taken over")
        yield

    places = Places(videos=tmp_path / "videos", pool=tmp_path / "pool", guard=guard)
    trainer = build_trainer(spec, sink=MemorySink(), places=places)
    with pytest.raises(AttemptLostError):
        trainer.run()
    assert trainer.step == 210  # where the next copy was due
    assert sorted(path.name for path in (tmp_path / "pool").iterdir()) == [f"copy_00000{n}.pt" for n in (1, 2, 3)]
    assert sorted(path.name for path in (tmp_path / "videos").iterdir()) == [
        f"step_{step:09d}.mp4" for step in (60, 120, 180)
    ]
    for copy in (tmp_path / "pool").iterdir():
        load_checkpoint(copy)
