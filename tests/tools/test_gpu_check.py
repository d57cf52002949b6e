"""gpu-check without a GPU: the same stages through the same code on the CPU, and what it does where it can't run."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
TOOL = ROOT / "tools" / "gpu-check"
STATES = {"waiting", "running", "ok", "failed", "timed out", "left out"}


@pytest.fixture
def gpu_check(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Its command line as a module."""
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    from gpu_check import cli

    return cli


def tool(*words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(TOOL), *words],
        capture_output=True,
        text=True,
        check=False,
        timeout=850,
        env={**os.environ, **variables},
    )


def report(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "report.json").read_text())
    assert {stage["state"] for stage in found["stages"]} <= STATES
    return found


@pytest.mark.timeout(900)  # on a busy machine; on a quiet one it takes a minute
def test_every_stage_runs_on_the_cpu_too(tmp_path: Path) -> None:
    out = tmp_path / "a folder"
    done = tool(
        "--device", "cpu", "--limit", "800", "--out", str(out), MLFLOW_TRACKING_URI="http://127.0.0.1:9/of-the-user"
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = report(out)
    assert (found["verdict"], found["device"], found["format"]) == ("good", "cpu", 1)
    assert {"gpu", "torch", "cuda", "capability", "memory_gib", "python", "code"} <= found["machine"].keys()
    stages = {stage["name"]: stage for stage in found["stages"]}
    agents = ("reference 9", "reference 3", "hockey_small 3")
    speeds = [f"{agent} {mode}" for agent in agents for mode in ("eager", "captured")]
    assert list(stages) == ["tests", "captures", *speeds, "quickstart", "resume"]
    assert all(stage["state"] == "ok" and stage["seconds"] > 0 and stage["said"] for stage in stages.values())
    assert "0 failed" in stages["tests"]["said"]
    for name, stage in stages.items():
        rows = stage["rows"]
        assert len(rows) == name.endswith(("eager", "captured"))
        for row in rows:
            assert name == f"{row['agent']} {row['horizon']} {row['mode']}"
            for timed in ("plan", "update"):
                assert 0 < row[f"{timed}_ms_min"] <= row[f"{timed}_ms"] <= row[f"{timed}_ms_max"]
            assert {"gpu", "torch", "capability", "precision", "kernels", "peak_allocated_mib"} <= row.keys()
    text = (out / "report.md").read_text()
    assert text.startswith("# GPU check: good\n")
    assert text.count("| reference (") == 4
    assert text.count("| hockey_small (") == 2
    # The quickstart went through the jobs of a project of its own, and none of it is left running.
    (project,) = out.glob("run-*/project")
    assert len([path for path in (project / "jobs").iterdir() if (path / "job.json").exists()]) == 2


def test_without_a_gpu_it_says_what_it_would_run(tmp_path: Path) -> None:
    done = tool("--out", str(tmp_path / "out"), CUDA_VISIBLE_DEVICES="")
    assert done.returncode == 3
    assert not (tmp_path / "out").exists()
    assert "no GPU here" in done.stderr
    for name in ("tests", "captures", "reference 9 captured", "quickstart", "resume"):
        assert f"  {name}: " in done.stderr


def planned(cli: Any, monkeypatch: pytest.MonkeyPatch, programs: dict[str, tuple[str, float]]) -> None:
    """Stages that run these Python programs, with these limits."""
    from gpu_check.process import python, run
    from gpu_check.report import Stage
    from gpu_check.stages import _judge

    def trying(work: Any, stage: Any) -> None:
        stage.log = f"{stage.name}.log"
        ended = run(python("-c", programs[stage.name][0]), work.folder, work.folder / stage.log, stage.limit_s)
        _judge(stage, ended, "")

    stages = [(Stage(name, name, limit), trying) for name, (_, limit) in programs.items()]
    monkeypatch.setattr(cli, "stages", lambda: stages)


MACHINE = {
    **dict.fromkeys(("gpu", "capability", "memory_gib", "cuda", "cudnn"), None),
    "torch": "2",
    "python": "3",
    "cpus": 2,
    "code": "abc",
}


def checked(cli: Any, folder: Path, limit_s: float = 60.0) -> int:
    from gpu_check.report import Report
    from gpu_check.stages import Work

    (folder / "run").mkdir()
    before = signal.getsignal(signal.SIGTERM)
    try:
        return int(cli.check(Work(folder / "run", "cpu", tiny=True), Report(folder, "cpu", MACHINE, []), limit_s))
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_stage_that_goes_wrong_is_written_down_and_the_next_goes_on(
    gpu_check: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    programs = {
        "fails": ("print('first'); raise SystemExit('CUDA error: misaligned')", 30.0),
        "crashes": ("import os; os.kill(os.getpid(), 11)", 30.0),
        "hangs": ("import time\nprint('waiting', flush=True)\ntime.sleep(60)", 1.5),
        "good": ("print('fine')", 30.0),
    }
    planned(gpu_check, monkeypatch, programs)
    assert checked(gpu_check, tmp_path) == 1
    found = report(tmp_path)
    stages = {stage["name"]: stage for stage in found["stages"]}
    assert {name: stage["state"] for name, stage in stages.items()} == {
        "fails": "failed",
        "crashes": "failed",
        "hangs": "timed out",
        "good": "ok",
    }
    assert found["verdict"] == "failed"
    assert stages["fails"]["last_lines"] == ["first", "CUDA error: misaligned"]
    assert "SIGSEGV" in stages["crashes"]["said"]
    assert stages["hangs"]["last_lines"] == ["waiting"]
    text = (tmp_path / "report.md").read_text()
    assert "## fails: the last lines (all of it: `fails.log`)\n\n```\nfirst\nCUDA error: misaligned\n```" in text


def test_a_mistake_in_a_stage_itself_ends_no_other(
    gpu_check: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from gpu_check.report import Stage

    def broken(work: Any, stage: Any) -> None:
        raise TypeError("must be real number, not NoneType")

    def fine(work: Any, stage: Any) -> None:
        stage.state = "ok"

    monkeypatch.setattr(gpu_check, "stages", lambda: [(Stage("a", "a", 9), broken), (Stage("b", "b", 9), fine)])
    assert checked(gpu_check, tmp_path) == 1
    first, second = report(tmp_path)["stages"]
    assert (first["state"], second["state"]) == ("failed", "ok")
    assert first["said"] == "TypeError: must be real number, not NoneType"
    assert any("in broken" in line for line in first["last_lines"])


def test_what_there_is_no_time_for_is_left_out(gpu_check: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    planned(gpu_check, monkeypatch, {"hangs": ("import time; time.sleep(60)", 30.0), "late": ("", 30.0)})
    assert checked(gpu_check, tmp_path, limit_s=1.0) == 1
    assert [stage["state"] for stage in report(tmp_path)["stages"]] == ["timed out", "left out"]


def test_a_check_that_is_cut_off_leaves_a_whole_report(tmp_path: Path) -> None:
    """By SIGTERM it ends what it runs and says so; by SIGKILL what stood there stays."""
    for number, code in ((signal.SIGTERM, 130), (signal.SIGKILL, -9)):
        out = tmp_path / number.name
        words = [sys.executable, str(TOOL), "--device", "cpu", "--out", str(out)]
        process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while not (out / "report.md").exists():  # the second of the two
            assert process.poll() is None
            time.sleep(0.05)
        process.send_signal(number)
        assert process.wait(60) == code
        found = report(out)
        states = [stage["state"] for stage in found["stages"]]
        assert states[1:] == ["waiting"] * 9
        assert states[0] == ("failed" if number == signal.SIGTERM else "running")
        assert (found["finished"] is None) == (number == signal.SIGKILL)
        assert (out / "report.md").read_text().startswith("# GPU check: ")


@pytest.mark.skipif(shutil.which("make") is None, reason="no make here")
def test_make_uses_a_python_that_is_there_as_it_is() -> None:
    words = ["make", "-n", "gpu-check", "GPU_PYTHON=/opt/my env/bin/python"]
    outer = ("OUT", "MAKELEVEL", "MAKEFLAGS", "MFLAGS")  # of a `make test` that this test may run under
    for given, folder in (({}, "gpu-check"), ({"OUT": "/tmp/a b"}, "/tmp/a b")):
        environment = {name: value for name, value in os.environ.items() if name not in outer} | given
        done = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
        assert done.stdout.strip() == f'"/opt/my env/bin/python" tools/gpu-check --out "{folder}"'
