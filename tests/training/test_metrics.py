from __future__ import annotations

import io

import pytest
import torch

from memory_sink import MemorySink
from tdmpc_lab.errors import NonFiniteError
from tdmpc_lab.files import read_jsonl
from tdmpc_lab.training.metrics import JsonlSink, LossMeter
from tdmpc_lab.training.progress import PlainProgress, make_progress


def test_jsonl_sink_rewinds_to_a_mark(tmp_path):
    path = tmp_path / "metrics.jsonl"
    sink = JsonlSink(path)
    sink.log({"step": 1})
    mark = sink.mark()
    sink.log({"step": 2})
    sink.rewind(mark)
    sink.log({"step": 3, "x": float("inf")})
    sink.close()
    assert read_jsonl(path)[0] == [{"step": 1}, {"step": 3, "x": float("inf")}]
    memory = MemorySink()
    memory.log({"a": 1})
    mark = memory.mark()
    memory.log({"a": 2})
    memory.rewind(mark)
    memory.close()
    assert memory.rows == [{"a": 1}]


def test_loss_meter_means():
    meter = LossMeter()
    assert meter.read(lambda: "x") == {}
    meter.check(lambda: "x")
    for value in (1.0, 2.0, 6.0):
        meter.add({"a": torch.tensor(value), "b": torch.tensor(-value)}, step=int(value))
    assert meter.read(lambda: "x") == {"a": pytest.approx(3.0), "b": pytest.approx(-3.0)}
    assert meter.read(lambda: "x") == {}


def test_loss_meter_names_the_first_bad_step_and_terms():
    meter = LossMeter()
    meter.add({"a": torch.tensor(1.0), "b": torch.tensor(1.0)}, step=10)
    meter.add({"a": torch.tensor(1.0), "b": torch.tensor(float("inf"))}, step=11)
    meter.add({"a": torch.tensor(float("nan")), "b": torch.tensor(1.0)}, step=12)
    with pytest.raises(NonFiniteError, match=r"step 11 in b; last good checkpoint: step_9\.pt"):
        meter.read(lambda: "step_9.pt")


def test_plain_lines_for_a_log_file():
    stream = io.StringIO()
    progress = make_progress({"quick": 5000}, stream)
    assert isinstance(progress, PlainProgress)
    progress.row("quick", {"step": 200, "split": "train", "return": -1234.5})
    progress.row("quick", {"step": 500, "split": "train", "updates": 0})
    progress.row("quick", {"step": 1000, "split": "train", "updates": 9, "loss/total": 12.5, "steps_per_s": 50.0})
    progress.row("quick", {"step": 1000, "split": "eval", "return_mean": -812.25, "return_std": 3.0, "episodes": 10})
    progress.message("quick", "checkpoint step_000001000.pt")
    progress.close()
    assert stream.getvalue().splitlines() == [
        "step 500/5,000  return −1,234.5",
        "step 1,000/5,000  return −1,234.5  loss 12.5  50.0 steps/s  1:20 left",
        "step 1,000: evaluation, return −812.2 ± 3.00 over 10 episodes",
        "checkpoint step_000001000.pt",
    ]


def test_lines_of_several_jobs_carry_their_names():
    stream = io.StringIO()
    progress = make_progress({"a": 10, "b": 10}, stream)
    progress.message("b", "started")
    assert stream.getvalue() == "b: started\n"
