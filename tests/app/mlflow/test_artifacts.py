"""Which files of a job its MLflow run gets."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from app_fixtures import QUICK

from tdmpc_lab.app.mlflow.mirror import draw_curve, run_files
from tdmpc_lab.config.loader import load_spec
from tdmpc_lab.config.serialize import dump_yaml
from tdmpc_lab.files import append_jsonl
from tdmpc_lab.jobs.paths import JobPaths, Project
from tdmpc_lab.jobs.record import JobRecord, write_record


@pytest.fixture
def paths(project: Path) -> JobPaths:
    paths = Project(project).job("7_3")
    paths.folder.mkdir(parents=True)
    write_record(paths, RECORD)
    config(paths)
    return paths


RECORD = JobRecord(
    id="7_3", experiment="demo", group="a", seed=1, cluster="slurm", spec_file="quick.yaml", steps_total=300,
    submitted_at="2026-02-03T09:14:22+01:00",
)  # fmt: skip


def config(paths: JobPaths, text: str = "") -> None:
    paths.spec.write_text(QUICK + text)
    paths.resolved.write_text(dump_yaml(load_spec(paths.spec).spec))


def evaluate(paths: JobPaths, steps: range) -> None:
    for step in steps:
        append_jsonl(paths.metrics, {"step": step, "split": "eval", "return_mean": -1.0, "return_std": 0.1})


def test_a_young_job_has_its_specs(paths: JobPaths) -> None:
    assert run_files(paths) == {"spec.yaml": paths.spec, "resolved.yaml": paths.resolved}
    evaluate(paths, range(2))
    assert list(run_files(paths)) == ["spec.yaml", "resolved.yaml"]
    assert not paths.curve.exists()


def test_curve_and_newest_video_lie_at_the_root(paths: JobPaths) -> None:
    evaluate(paths, range(3))
    paths.videos.mkdir()
    for name in ("step_1.mp4", "step_2.mp4"):
        (paths.videos / name).touch()
    files = run_files(paths)
    names = ["spec.yaml", "resolved.yaml", "video.mp4", "curve.png", "videos/step_1.mp4", "videos/step_2.mp4"]
    assert list(files) == names
    assert files["video.mp4"].name == "step_2.mp4"
    assert files["curve.png"].read_bytes().startswith(b"\x89PNG")


def test_the_curve_is_drawn_again_only_for_new_evaluations(paths: JobPaths) -> None:
    evaluate(paths, range(3))
    assert draw_curve(paths) == paths.curve
    paths.curve.write_bytes(b"as it was")
    assert draw_curve(paths) == paths.curve
    assert paths.curve.read_bytes() == b"as it was"
    os.utime(paths.curve, (1, 1))
    assert draw_curve(paths) == paths.curve
    assert paths.curve.read_bytes() != b"as it was"


def test_a_curve_that_cant_be_drawn_is_left_out(paths: JobPaths, capsys: pytest.CaptureFixture[str]) -> None:
    evaluate(paths, range(3))
    paths.curve.mkdir()
    os.utime(paths.curve, (1, 1))
    assert "curve.png" not in run_files(paths)
    assert "the learning curve was not drawn: IsADirectoryError" in capsys.readouterr().err


def test_the_last_checkpoint_where_it_is_wanted(paths: JobPaths) -> None:
    paths.checkpoints.mkdir()
    for step in (50, 300):
        (paths.checkpoints / f"step_{step:09}.pt").touch()
    assert "checkpoints/step_000000300.pt" not in run_files(paths)
    config(paths, "mlflow: {checkpoint: on}\n")
    wanted = [name for name in run_files(paths) if name.startswith("checkpoints")]
    assert wanted == ["checkpoints/step_000000300.pt"]
    paths.resolved.write_text("torn: [")
    assert list(run_files(paths)) == ["spec.yaml", "resolved.yaml"]
