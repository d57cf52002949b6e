from __future__ import annotations

import dataclasses
import threading

import numpy as np
import pytest
import torch
from training_fixtures import run, spec, with_train

from memory_sink import MemorySink
from tdmpc_lab.agent import Episode, Replay
from tdmpc_lab.errors import CheckpointError
from tdmpc_lab.training import checkpoints as episode_files
from tdmpc_lab.training.build import Places, build_trainer
from tdmpc_lab.training.checkpoints import (
    CheckpointStore,
    arrays_to_tensors,
    load_checkpoint,
    load_training,
    save_checkpoint,
    step_of,
    tensors_to_arrays,
)
from tdmpc_lab.training.saving import rows_there


def test_the_last_two_are_kept(tmp_path):
    store = CheckpointStore(tmp_path / "made")
    assert store.load_latest() is None
    assert store.latest_name() == "none yet"
    for step in (5, 20, 100):
        store.save(step, {"x": torch.tensor(float(step))})
    assert [p.name for p in store.paths()] == ["step_000000020.pt", "step_000000100.pt"]
    assert store.load_latest()["x"].item() == 100
    assert not list((tmp_path / "made").glob("*.tmp*"))


@pytest.mark.parametrize("damage", [b"", b"PK\x03\x04 torn", None])
def test_a_torn_checkpoint_is_passed_over_and_named(tmp_path, damage):
    store = CheckpointStore(tmp_path)
    store.save(1, {"x": 1})
    newest = store.save(2, {"x": 2})
    newest.write_bytes(newest.read_bytes()[:-200] if damage is None else damage)
    assert store.load_latest()["x"] == 1
    assert len(store.skipped) == 1
    assert "step_000000002.pt" in store.skipped[0]
    store.paths()[0].write_bytes(b"x")
    with pytest.raises(CheckpointError, match=r"no checkpoint can be read:(.|\n)*step_000000001"):
        CheckpointStore(tmp_path).load_latest()


def test_loading_runs_no_code(tmp_path):
    class Bomb:
        def __reduce__(self):
            return (open, (str(tmp_path / "pwned"), "w"))

    path = tmp_path / "step_000000001.pt"
    torch.save({"format": 2, "step": 1, "x": Bomb()}, path)
    with pytest.raises(CheckpointError, match="can't be read"):
        load_checkpoint(path)
    assert not (tmp_path / "pwned").exists()


def test_other_formats_and_missing_files(tmp_path):
    path = tmp_path / "step_000000001.pt"
    torch.save({"format": 99}, path)
    with pytest.raises(CheckpointError, match="format 99; this version reads format 2"):
        load_checkpoint(path)
    with pytest.raises(CheckpointError, match="no such file"):
        load_checkpoint(tmp_path / "none.pt")
    assert step_of(tmp_path / "other.pt") == -1


def test_arrays_and_tensors_round_trip():
    tree = {"a": [np.arange(3, dtype=np.float32), {"b": 1}], "c": np.zeros((0, 2))}
    back = tensors_to_arrays(arrays_to_tensors(tree))
    np.testing.assert_array_equal(back["a"][0], tree["a"][0])
    assert back["a"][1] == {"b": 1}
    assert back["c"].shape == (0, 2)


def test_a_checkpoint_of_another_spec_is_refused(tmp_path):
    a_spec = spec()
    run(a_spec, places=Places(CheckpointStore(tmp_path)))
    state = CheckpointStore(tmp_path).load_latest()
    other = build_trainer(with_train(a_spec, envs=2), sink=MemorySink())
    with pytest.raises(CheckpointError, match=r"1 environments, train\.envs is 2"):
        other.load_state_dict(state)


def test_an_episode_that_plays_out_differently_is_dropped(tmp_path):
    """Same number of environments, but the running episode's stored observation does not come out again."""
    a_spec = with_train(spec(), steps=110)
    run(a_spec, places=Places(CheckpointStore(tmp_path)))
    state = CheckpointStore(tmp_path).load_latest()
    state["envs"]["envs"][0]["observation"] += 1.0
    events = []
    longer = with_train(a_spec, steps=130)
    trainer = build_trainer(longer, sink=MemorySink(), on_event=lambda k, f: events.append((k, dict(f))))
    trainer.load_state_dict(state)
    assert ("episode_dropped", {"env": 0, "step": 110}) in events
    assert trainer.run().step == 130


def small_replay(capacity: int = 60) -> Replay:
    return Replay(
        capacity=capacity, observation_dim=2, action_dim=1, horizon=2, device=torch.device("cpu"), host_only=True
    )


def fill(replay: Replay, episodes: int, steps: int = 4) -> None:
    """Add episodes whose values tell them apart."""
    for _ in range(episodes):
        number = float(replay.episodes_added)
        replay.add(
            Episode(
                observations=np.full((steps + 1, 2), number, dtype=np.float32),
                actions=np.zeros((steps, 1), dtype=np.float32),
                rewards=np.full(steps, number, dtype=np.float32),
                terminated=np.zeros(steps, dtype=np.bool_),
                truncated=np.zeros(steps, dtype=np.bool_),
            )
        )


def files(folder) -> list[str]:
    return sorted(path.name for path in folder.glob("episodes_*.pt"))


def reloaded(folder, capacity: int = 60) -> Replay:
    replay = small_replay(capacity)
    replay.load_state_dict(CheckpointStore(folder).load_latest()["replay"])
    return replay


def test_every_episode_is_written_once_and_goes_with_the_last_checkpoint_that_needs_it(tmp_path):
    """A ring of twelve episodes through which forty pass; what is read back samples as the one in memory does."""
    store, replay = CheckpointStore(tmp_path), small_replay()
    for save in range(1, 14):
        fill(replay, 3)
        path = store.save(save, {}, replay)
        assert reloaded(tmp_path).sample(50).rewards.tolist() == replay.sample(50).rewards.tolist()
        new = [name for name in files(tmp_path) if f"-{3 * save:09d}_" in name]
        assert [name[:18] for name in new] == [f"episodes_{3 * save - 3:09d}"]
    named = {file.name for old in store.paths() for file in episode_files.files_in(load_checkpoint(old))}
    assert files(tmp_path) == sorted(named)
    assert len(named) == 5  # four for the newest twelve episodes, one more for the checkpoint before
    assert path == store.paths()[-1]


def test_a_checkpoint_is_small_however_large_the_replay(tmp_path):
    store, replay = CheckpointStore(tmp_path), small_replay(20_000)
    fill(replay, 3000)
    store.begin(1, {}, replay)
    assert store.finish().size > 200_000
    fill(replay, 2)
    store.begin(2, {}, replay)
    assert store.finish().size < 80_000  # most of it the lengths of three thousand episodes


def test_many_small_files_become_one(tmp_path, monkeypatch):
    monkeypatch.setattr(episode_files, "MOST_SMALL", 4)
    store, replay = CheckpointStore(tmp_path, keep=1), small_replay(2000)
    counts = []
    for save in range(60):
        fill(replay, 1)
        store.save(save, {}, replay)
        counts.append(len(files(tmp_path)))
    assert max(counts) <= 4 + 7  # and as many as 60 has binary digits
    assert len(reloaded(tmp_path, 2000)) == len(replay) == 240


def test_a_store_goes_on_with_the_files_it_has_read(tmp_path):
    replay = small_replay()
    fill(replay, 5)
    CheckpointStore(tmp_path).save(1, {}, replay)
    (first,) = files(tmp_path)
    second, store = small_replay(), CheckpointStore(tmp_path)
    second.load_state_dict(store.load_latest()["replay"])
    fill(second, 1)
    store.save(2, {}, second)
    assert files(tmp_path)[0] == first
    assert len(files(tmp_path)) == 2
    other = small_replay()  # of another training: the files hold nothing of it
    fill(other, 7)

    def full() -> None:
        raise OSError(28, "No space left on device")

    store.begin(3, {}, other, first=full)
    with pytest.raises(OSError, match="No space"):
        store.finish()
    store.save(4, {}, other)
    assert len(reloaded(tmp_path)) == 28


@pytest.mark.parametrize("which", ["step", "episodes"])
@pytest.mark.parametrize("where", [0.1, 0.5, 0.9])
def test_a_single_changed_byte_is_found_and_the_checkpoint_before_is_used(tmp_path, which, where):
    store, replay = CheckpointStore(tmp_path), small_replay()
    for save in (1, 2):
        fill(replay, 2)
        store.save(save, {"x": torch.arange(1000)}, replay)
    newest = sorted(tmp_path.glob(f"{which}_*.pt"))[-1]
    data = bytearray(newest.read_bytes())
    data[int(where * len(data))] ^= 1
    newest.write_bytes(data)
    again = CheckpointStore(tmp_path)
    assert again.load_latest()["step"] == 1
    assert "step_000000002.pt" in again.skipped[0]
    assert "checksum" in again.skipped[0]
    assert newest.name in again.skipped[0]
    third = small_replay()
    third.load_state_dict(load_training(tmp_path / "step_000000001.pt")["replay"])
    again.save(3, {}, third)
    assert [path.name for path in again.paths()] == ["step_000000001.pt", "step_000000003.pt"]  # two that can be read


def test_a_file_of_episodes_that_is_gone_is_named(tmp_path):
    store, replay = CheckpointStore(tmp_path), small_replay()
    fill(replay, 2)
    store.save(1, {}, replay)
    (tmp_path / files(tmp_path)[0]).unlink()
    with pytest.raises(CheckpointError, match=r"step_000000001\.pt: of its replay: .*episodes_0.*no such file"):
        store.load_latest()


def test_names_of_files_in_a_checkpoint_reach_no_other_folder(tmp_path):
    (tmp_path / "outside.pt").write_bytes(b"x")
    listed = {"name": "../outside.pt", "first": 0, "end": 1, "slots": 2, "digest": "0" * 64}
    path = tmp_path / "in" / "step_000000001.pt"
    save_checkpoint(path, {"step": 1, "replay": {"files": [listed]}})
    with pytest.raises(CheckpointError, match="no name of a file of episodes"):
        load_training(path)


def test_saving_goes_on_behind_the_training_s_back(tmp_path):
    """The caller is held for the copy alone, and what it changes after that does not reach the file."""
    allowed, weights = threading.Event(), torch.zeros(3)
    store = CheckpointStore(tmp_path)
    store.begin(1, {"w": weights, "list": [weights]}, first=lambda: allowed.wait(10))
    weights += 1
    assert store.poll() is None
    assert store.paths() == []
    with pytest.raises(ValueError, match="call finish first"):
        store.begin(2, {})
    allowed.set()
    saved = store.finish()
    assert saved.path == store.paths()[0]
    assert saved.held_s < 5
    state = store.load_latest()
    assert state["w"].tolist() == state["list"][0].tolist() == [0, 0, 0]
    assert store.finish() is None


def test_a_disk_that_is_full_is_told_to_the_training_and_leaves_the_one_before(tmp_path):
    store = CheckpointStore(tmp_path)
    store.save(1, {})

    def full() -> None:
        raise OSError(28, "No space left on device")

    store.begin(2, {}, first=full)
    with pytest.raises(OSError, match="No space left"):
        store.finish()
    assert [path.name for path in store.paths()] == ["step_000000001.pt"]
    store.save(3, {})
    assert len(store.paths()) == 2


def test_another_horizon_goes_on_with_the_part_of_the_plan_that_fits(tmp_path):
    a_spec = spec()
    run(with_train(a_spec, steps=100), places=Places(CheckpointStore(tmp_path)))
    for horizon in (2, 5):
        changed = dataclasses.replace(a_spec, agent=dataclasses.replace(a_spec.agent, horizon=horizon))
        trainer = build_trainer(changed, sink=MemorySink())
        trainer.load_state_dict(CheckpointStore(tmp_path).load_latest())
        assert trainer.run().step == 120


def test_what_is_no_state_of_a_training_is_no_crash(tmp_path):
    run(spec(), places=Places(CheckpointStore(tmp_path)))
    good = CheckpointStore(tmp_path).load_latest()
    trainer = build_trainer(spec(), sink=MemorySink())
    for key in good:
        if key in ("format", "spec", "observation_dim", "action_dim", "episode_length"):
            continue
        for wrong in (None, [], {}, "x", torch.zeros(2)):
            with pytest.raises(CheckpointError):
                trainer.load_state_dict(good | {key: wrong})


def test_a_checkpoint_taken_with_more_metrics_than_there_are_is_passed_over(tmp_path):
    sink, store = MemorySink(), CheckpointStore(tmp_path)
    run(spec(checkpoint_every=60), sink=sink, places=Places(store))
    del sink.rows[-2:]
    again = CheckpointStore(tmp_path)
    assert again.load_latest(rows_there(sink))["step"] == 60
    assert "more metrics than there are now" in again.skipped[0]
