"""How long a run will take: which jobs are taken as its like, and what is said without any."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from app_fixtures import write_specs

from tdmpc_lab.app.checks.estimate import NEWEST, estimate_run_time, measure_run_time, run_seconds
from tdmpc_lab.app.submit import submit
from tdmpc_lab.cli.main import main
from tdmpc_lab.config.diff import config_hash
from tdmpc_lab.config.loader import load_spec
from tdmpc_lab.config.schema import Spec
from tdmpc_lab.config.serialize import dump_yaml
from tdmpc_lab.jobs.events import EventLog
from tdmpc_lab.jobs.ids import new_local_id
from tdmpc_lab.jobs.paths import Project
from tdmpc_lab.jobs.record import JobRecord, write_record

QUICK = "experiments/quick.yaml"
NINE = datetime.fromisoformat("2026-02-03T09:00:00+00:00")


@pytest.fixture
def lab(project: Path) -> Project:
    write_specs(project)
    return Project(project)


def spec(lab: Project, *overrides: str) -> Spec:
    return load_spec(lab.root / QUICK, overrides).spec


def add_job(
    lab: Project, number: int, seconds: float, *overrides: str, end: str = "finished", step: int = 80, **fields: object
) -> str:
    """A job of `quick` that took this long, submitted `number` minutes past nine."""
    made, begin = spec(lab, *overrides), NINE + timedelta(minutes=number)
    paths = lab.job(new_local_id(begin))
    paths.folder.mkdir(parents=True)
    paths.resolved.write_text(dump_yaml(made))
    record = {
        "id": paths.id, "experiment": "quick", "env_id": made.env.id, "config_hash": config_hash(made), "group": "g",
        "seed": made.train.seed, "cluster": "local", "command": ("tdmpc-lab",), "spec_file": QUICK,
        "submitted_at": begin.isoformat(), "steps_total": made.train.steps,
    }  # fmt: skip
    write_record(paths, JobRecord(**(record | fields)))
    times = iter([begin, begin + timedelta(seconds=seconds)])
    log = EventLog(paths.events, clock=lambda: next(times))
    log.append("started", host="n", pid=1, attempt=1)
    log.append(end, step=step, attempt=1)
    return paths.id


def test_nothing_is_said_without_a_job_like_it(lab: Project) -> None:
    assert estimate_run_time(lab, spec(lab), "local") is None
    add_job(lab, 1, 8.0, end="stopped", step=79)
    add_job(lab, 2, 8.0, parent="local-20260101-000000-000")
    add_job(lab, 3, 8.0, cluster="slurm")
    for number, key in enumerate(("agent.horizon=4", "planner.samples=9", "train.batch_size=5", "eval.episodes=3"), 4):
        add_job(lab, number, 8.0, key)
    assert estimate_run_time(lab, spec(lab), "local") is None


def test_the_median_time_per_step_of_the_newest(lab: Project) -> None:
    last = ""
    for number, seconds in enumerate([900.0] * 3 + [16.0, 8.0, 24.0, 80.0, 4.0]):
        last = add_job(lab, number, seconds, f"train.seed={number}", f"agent.lr={1 + number}e-4")
    assert NEWEST == 5
    found = estimate_run_time(lab, spec(lab, "train.steps=160"), "local")
    assert found is not None
    assert found.seconds == pytest.approx(2 * 16.0)  # of 16, 8, 24, 80, 4 s for 80 steps
    assert found.basis == f"median of 5 such jobs, the last {last}"
    assert str(found) == f"about 0:32 ({found.basis})"


def test_a_job_that_cannot_be_read_is_passed_over(lab: Project) -> None:
    good = add_job(lab, 1, 8.0)
    lab.job(add_job(lab, 2, 16.0)).resolved.write_text("agent: [")
    found = estimate_run_time(lab, spec(lab), "local")
    assert found is not None
    assert (found.seconds, found.basis) == (8.0, f"as {good} took")


def test_a_job_that_goes_on_is_estimated_for_the_steps_left(lab: Project) -> None:
    add_job(lab, 1, 16.0)
    found = estimate_run_time(lab, spec(lab, "train.steps=200"), "local", done=160)
    assert found is not None and found.seconds == pytest.approx(8.0)  # 40 steps of 0.2 s
    whole, rest, random = (run_seconds(spec(lab, "train.steps=200"), 10, 5, 1, 20, done) for done in (0, 160, 20))
    # 40 of 200 steps without the random ones, each with an update, and one evaluation of two episodes
    assert rest == pytest.approx((40 + 2 * 20) * 0.010 + 40 * 0.005 + (40 + 2 * 40) * 0.001)
    assert rest < random < whole


def test_a_measured_estimate_grows_with_the_work(lab: Project) -> None:
    few, many = (measure_run_time(spec(lab, f"train.steps={n}"), 3, 1, 20) for n in (2_000, 200_000))
    assert 0 < 5 * few.seconds < many.seconds  # some hundred times as many, on a machine that may be busy
    assert "measured on this machine" in few.basis


def test_the_dry_run_says_it(lab: Project, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["submit", QUICK, "--cluster", "local", "--dry-run"]) == 0
    assert "  takes about 0:0" in (text := capsys.readouterr().out)
    assert "measured on this machine" in text
    job = add_job(lab, 1, 8.0)
    assert main(["submit", QUICK, "--cluster", "local", "--dry-run", "--again", "--json"]) == 0
    (report,) = json.loads(capsys.readouterr().out)["jobs"]
    assert report["estimate"] == {"seconds": 8, "basis": f"as {job} took"}
    words = ["submit", QUICK, "--cluster", "slurm", "--dry-run", "--again", "--skip-preflight"]
    assert main(words) == 0
    assert "takes an unknown time: no job like it has run to its end yet" in capsys.readouterr().out


def test_points_of_a_sweep_that_are_alike_are_estimated_once(
    lab: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = []
    monkeypatch.setattr(submit, "_estimate", lambda _project, spec, _cluster, _done: asked.append(spec.agent.horizon))
    sweep = ["sweep.train.seed=[1, 2, 3]", "sweep.agent.horizon=[3, 4]"]
    assert main(["submit", QUICK, "--cluster", "local", "--dry-run", *sweep]) == 0
    assert sorted(asked) == [3, 4]
    assert capsys.readouterr().out.count("takes an unknown time") == 6
