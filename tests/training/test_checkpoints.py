from __future__ import annotations

import numpy as np
import pytest
import torch
from training_fixtures import run, spec, with_train

from tdmpc_lab.errors import CheckpointError
from tdmpc_lab.training.build import Places, build_trainer
from tdmpc_lab.training.checkpoints import (
    CheckpointStore,
    arrays_to_tensors,
    load_checkpoint,
    step_of,
    tensors_to_arrays,
)
from tdmpc_lab.training.metrics import MemorySink


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
    torch.save({"format": 1, "step": 1, "x": Bomb()}, path)
    with pytest.raises(CheckpointError, match="can't be read"):
        load_checkpoint(path)
    assert not (tmp_path / "pwned").exists()


def test_other_formats_and_missing_files(tmp_path):
    path = tmp_path / "step_000000001.pt"
    torch.save({"format": 99}, path)
    with pytest.raises(CheckpointError, match="format 99; this version reads format 1"):
        load_checkpoint(path)
    with pytest.raises(CheckpointError, match="no such checkpoint"):
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
