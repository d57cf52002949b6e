"""System metrics: who gets a sample, and what is asked of the driver."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from memory_sink import MemorySink
from tdmpc_lab.training.system import ProcessUse, SystemSink, ask_driver


def test_a_sample_goes_into_one_row_of_the_training() -> None:
    inner, sampled = MemorySink(), threading.Event()
    sink = SystemSink(inner)

    def sample() -> dict[str, float]:
        if sampled.is_set():
            raise RuntimeError("the driver is gone")
        sampled.set()
        return {"system/gpu_percent": 50.0}

    sink.watch(sample, first_s=0.0, every_s=0.01)
    assert sampled.wait(10)
    wait_for_the_end()
    sink.log({"split": "eval"})
    sink.log({"split": "train", "step": 1})
    mark = sink.mark()
    sink.log({"split": "train", "step": 2})
    assert sink.holds(mark + 1)
    sink.rewind(mark)
    assert not sink.holds(mark + 1)
    sink.sync()
    sink.close()
    assert inner.rows == [{"split": "eval"}, {"split": "train", "step": 1, "system/gpu_percent": 50.0}]


def test_closing_ends_the_sampling() -> None:
    sink = SystemSink(MemorySink())
    sink.watch(dict, first_s=60.0)
    sink.close()
    wait_for_the_end()


def wait_for_the_end(seconds: float = 10.0) -> None:
    end = time.monotonic() + seconds
    while any(thread.name == "system-metrics" for thread in threading.enumerate()):
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.mark.parametrize(
    ("script", "found"),
    [
        ('echo "$@" >> {folder}/asked; echo "37, 121.5"', {"system/gpu_percent": 37.0, "system/gpu_watts": 121.5}),
        ('echo "37, [N/A]"', {"system/gpu_percent": 37.0}),
        ('echo "37, 1"; echo "12, 1"', {}),  # not one device: whose is it?
        ("echo unknown error; exit 9", {}),
    ],
)
def test_the_driver_is_asked_for_the_jobs_own_gpu(
    script: str, found: dict[str, float], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text(f"#!/bin/sh\n{script.format(folder=tmp_path)}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert ask_driver("12ab") == found
    if (tmp_path / "asked").exists():
        assert (tmp_path / "asked").read_text().strip().endswith("-i GPU-12ab")


def test_without_a_driver(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert ask_driver("") == {}


def test_the_process() -> None:
    use = ProcessUse()
    end = time.process_time() + 0.05
    while time.process_time() < end:
        pass
    sample = use.sample()
    assert 5 < sample["system/cpu_percent"] < 1000
    assert 5 < sample["system/memory_mb"] < 100_000
