"""Whole lives of local jobs through the command line: real processes, real physics, a real MLflow store."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from app_fixtures import write_specs

from tdmpc_lab.files import read_jsonl
from tdmpc_lab.jobs.variants import PALETTE

LIMIT_S = 150


def lab(root: Path, *words: str, check: int | None = 0) -> subprocess.CompletedProcess[str]:
    """Run `tdmpc-lab` as a user would; `check` is the exit code expected."""
    done = subprocess.run(
        [sys.executable, "-m", "tdmpc_lab", *words],
        cwd=root,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(root), *filter(None, [os.environ.get("PYTHONPATH")])])},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    if check is not None:
        assert done.returncode == check, f"{words}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done


def one_job(root: Path) -> dict:
    jobs = json.loads(lab(root, "status", "--json").stdout)
    assert len(jobs) == 1
    return jobs[0]


def client(root: Path):
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=f"sqlite:///{root}/mlruns/mlflow.db")


@pytest.fixture
def root(project: Path) -> Path:
    write_specs(project)
    return project


def test_a_reader_that_goes_away_loses_no_job(root):
    """`submit … | head -1`: standard output breaks when the job is on record and not yet started."""
    reader, writer = os.pipe()
    os.close(reader)
    words = [sys.executable, "-m", "tdmpc_lab", "submit", "experiments/quick.yaml", "--cluster", "local"]
    with os.fdopen(writer, "wb") as nobody:
        submit = subprocess.run(
            words, cwd=root, stdout=nobody, stderr=subprocess.PIPE, text=True, timeout=LIMIT_S, check=False
        )
    assert submit.returncode == 0
    assert "pipe" not in submit.stderr.lower()
    lab(root, "wait", one_job(root)["id"])
    assert one_job(root)["state"] == "COMPLETED"


def test_from_spec_to_note(root):
    """submit --wait: folder, metrics, MLflow run, note and status say the same, and the exit code is 0."""
    done = lab(root, "submit", "experiments/quick.yaml", "train.seed=7", "--cluster", "local", "--wait", "--json")
    report = json.loads(done.stdout)["jobs"]
    assert len(report) == 1
    job = report[0]
    folder = Path(job["folder"])
    assert sorted(p.name for p in folder.iterdir() if not p.name.startswith(".")) == [
        "checkpoints",
        "events.jsonl",
        "job.json",
        "log.err",
        "log.out",
        "metrics.jsonl",
        "resolved.yaml",
        "spec.yaml",
        "submitit",
        "supervisor.log",
    ]
    assert not (folder / ".reserve").exists()  # the space kept for the outcome is given back
    assert (folder / "spec.yaml").read_text() == (root / "experiments" / "quick.yaml").read_text()
    assert "seed: 7" in (folder / "resolved.yaml").read_text()
    assert sorted(p.name for p in (folder / "checkpoints").glob("step_*")) == ["step_000000050.pt", "step_000000080.pt"]
    assert "step 80/80" in (folder / "log.out").read_text()
    events = [e["event"] for e in read_jsonl(folder / "events.jsonl")[0]]
    assert events[0] == "started"
    assert events.count("finished") == 1
    assert "warning" not in events

    rows, _ = read_jsonl(folder / "metrics.jsonl")
    evaluations = [r for r in rows if r["split"] == "eval"]
    assert [r["step"] for r in evaluations] == [40, 80]
    status = one_job(root)
    assert (status["id"], status["state"], status["step"], status["steps"]) == (job["id"], "COMPLETED", 80, 80)
    assert status["return"] == evaluations[-1]["return_mean"]

    run = client(root).get_run(job["mlflow_run"])
    assert run.info.status == "FINISHED"
    assert run.data.params["agent.horizon"] == "3"
    assert run.data.params["train.seed"] == "7"
    assert run.data.tags["tdmpc_lab.job_id"] == job["id"]
    history = client(root).get_metric_history(job["mlflow_run"], "eval/return_mean")
    assert [(m.step, m.value) for m in history] == [(r["step"], r["return_mean"]) for r in evaluations]
    logged = client(root).get_metric_history(job["mlflow_run"], "loss/total")
    assert [m.step for m in logged] == [r["step"] for r in rows if "loss/total" in r]
    assert "COMPLETED" in run.data.tags["mlflow.note.content"].splitlines()[0]

    assert folder.stat().st_mode & 0o007 == 0  # closed to other users

    note = Path(job["note"]).read_text()
    assert f"##### {job['id']} - " in note
    assert "- a few steps, to see everything move" in note
    assert "COMPLETED in" in note
    assert job["mlflow_run"] in note
    assert "tdmpc-lab submit experiments/quick.yaml train.seed=7" in note
    assert lab(root, "note", "last").stdout == note
    assert "0 jobs brought in sync, 1 in sync already" in lab(root, "sync").stdout

    table = lab(root, "status").stdout
    assert "COMPLETED" in table
    assert "a few steps, to see everything move" in table


def test_a_failing_job_leaves_its_traceback_in_note_and_status(root):
    done = lab(
        root, "submit", "experiments/moody.yaml", "env.options={fail_at: 87}", "--cluster", "local", "--wait", check=1
    )
    assert "FAILED" in done.stdout
    status = one_job(root)
    assert status["state"] == "FAILED"
    assert "the puck left the universe" in status["cause"]
    assert "the puck left the universe" in lab(root, "status").stdout
    assert status["step"] >= 40
    assert "ValueError: the puck left the universe" in status["traceback"]
    assert "ValueError: the puck left the universe" in lab(root, "status", "last").stdout
    note = lab(root, "note", "last").stdout
    assert "FAILED after" in note
    assert "ValueError: the puck left the universe" in note
    assert "moody_env.py" in note  # where it happened
    assert client(root).get_run(status["mlflow_run"]).info.status == "FAILED"


def test_a_killed_job_is_not_called_running_and_can_be_resumed(root):
    lab(root, "submit", "experiments/moody.yaml", "env.options={kill_at: 137}", "--cluster", "local", "--wait", check=1)
    status = one_job(root)
    assert status["state"] == "FAILED"
    assert "without an outcome" in status["cause"]
    assert status["step"] == 50  # the last checkpoint

    done = lab(root, "resume", "last", "env.options={kill_at: null}", "--cluster", "local", "--wait", "--json")
    new = json.loads(done.stdout)["jobs"][0]
    assert new["id"] != status["id"]
    rows, _ = read_jsonl(Path(new["folder"]) / "metrics.jsonl")
    steps = [r["step"] for r in rows if "updates" in r]
    assert steps == [20, 40, 60, 80]  # whole by itself, no step missing or doubled
    record = json.loads((Path(new["folder"]) / "job.json").read_text())
    assert record["parent"] == status["id"]
    assert status["id"] in Path(new["note"]).read_text()
    assert "resumed" in [e["event"] for e in read_jsonl(Path(new["folder"]) / "events.jsonl")[0]]

    assert f"tdmpc-lab resume {status['id']}" in Path(new["note"]).read_text()
    refused = lab(root, "resume", new["id"], "--cluster", "local", check=2)
    assert "--steps" in refused.stderr
    for change in ("train.seed=9", "agent.latent_dim=32", "train.envs=2", "env.id=Pendulum-v1"):
        refused = lab(root, "resume", new["id"], "--steps", "100", change, "--cluster", "local", check=2)
        assert f"can't change {change.split('=')[0]}" in refused.stderr
    assert len(list((root / "jobs").glob("local-*"))) == 2
    longer = lab(root, "resume", new["id"], "--steps", "100", "--cluster", "local", "--wait", "--json")
    rows, _ = read_jsonl(Path(json.loads(longer.stdout)["jobs"][0]["folder"]) / "metrics.jsonl")
    assert max(r["step"] for r in rows) == 100


def test_cancel_saves_and_says_so(root):
    lab(root, "submit", "experiments/moody.yaml", "env.options={slow: 0.05}", "train.steps=5000", "--cluster", "local")
    waiting = json.loads(lab(root, "submit", "experiments/quick.yaml", "--cluster", "local", "--json").stdout)
    waiting = waiting["jobs"][0]["id"]
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        jobs = {j["id"]: j for j in json.loads(lab(root, "status", "--json").stdout)}
        running = next(j for i, j in jobs.items() if i != waiting)
        if running["state"] == "RUNNING" and (running["step"] or 0) >= 40:
            break
        time.sleep(0.5)
    assert jobs[waiting]["state"] == "PENDING"
    assert "1 at a time" in jobs[waiting]["cause"]
    lab(root, "cancel", waiting, running["id"])
    lab(root, "wait", waiting, running["id"], check=1)
    jobs = {j["id"]: j for j in json.loads(lab(root, "status", "--json").stdout)}
    assert {j["state"] for j in jobs.values()} == {"CANCELLED"}
    assert (jobs[waiting]["step"] or 0) == 0
    assert list((root / "jobs" / running["id"] / "checkpoints").glob("step_*.pt"))
    assert "CANCELLED" in (root / "notes" / f"{running['id']}.md").read_text()


def test_ctrl_c_while_waiting_leaves_the_job_alone(root):
    long_job = ["experiments/moody.yaml", "env.options={slow: 0.05}", "train.steps=5000"]
    process = subprocess.Popen(
        [sys.executable, "-m", "tdmpc_lab", "submit", *long_job, "--cluster", "local", "--wait"],
        cwd=root,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # what runs in a shell's background ignores Ctrl-C, and its children inherit that
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509 - one thread here
    )
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not list((root / "jobs").glob("*/events.jsonl")):
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGINT)  # what a terminal sends to everything in its foreground
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "the job continues" in errors
    assert one_job(root)["state"] == "RUNNING"
    lab(root, "cancel", "last")
    lab(root, "wait", "last", check=1)
    assert one_job(root)["state"] == "CANCELLED"


def test_debug_runs_here_and_shows_the_traceback(root):
    talkative = (root / "moody_env.py").read_text().replace("Moody.steps += 1", "Moody.steps += 1; print('hi')")
    (root / "moody_env.py").write_text(talkative)
    words = ["submit", "experiments/moody.yaml", "--cluster", "debug", "--json"]
    done = lab(root, *words, "env.options={fail_at: 3}", check=1)
    job = json.loads(done.stdout)["jobs"][0]  # one document, in spite of what the environment prints
    assert "hi" in done.stderr
    assert one_job(root)["id"] == job["id"]
    (root / "jobs" / job["id"]).rename(root / "elsewhere")

    done = lab(root, "submit", "experiments/moody.yaml", "env.options={fail_at: 3}", "--cluster", "debug", check=1)
    assert "Traceback" in done.stderr
    assert "moody_env.py" in done.stderr
    assert "ValueError: the puck left the universe" in done.stderr
    assert one_job(root)["state"] == "FAILED"


def test_a_sweep_is_one_job_per_point_of_one_experiment(root):
    text = (root / "experiments" / "quick.yaml").read_text()
    (root / "experiments" / "two.yaml").write_text(text + "sweep: {agent.horizon: [3, 4]}\n")
    done = lab(root, "submit", "experiments/two.yaml", "--cluster", "local", "--max-local", "2", "--wait", "--json")
    ids = [job["id"] for job in json.loads(done.stdout)["jobs"]]
    assert len(set(ids)) == 2
    jobs = json.loads(lab(root, "status", "--json").stdout)
    assert [(job["id"], job["experiment"], job["state"]) for job in jobs] == [(i, "two", "COMPLETED") for i in ids]
    for index, job_id in enumerate(ids):
        folder = root / "jobs" / job_id
        record = json.loads((folder / "job.json").read_text())
        assert record["sweep"] == {"index": index, "count": 2, "point": {"agent.horizon": 3 + index}}
        assert record["overrides"] == [f"agent.horizon={3 + index}", "sweep=off"]
        resolved = (folder / "resolved.yaml").read_text()
        assert f"horizon: {3 + index}\n" in resolved
        assert "sweep" not in resolved
        assert f"- sweep: agent.horizon={3 + index} (job {index + 1} of 2)\n" in lab(root, "note", job_id).stdout
    assert "horizon 4 · a few steps" in lab(root, "status").stdout
    runs = client(root).search_runs([client(root).get_experiment_by_name("two").experiment_id])
    assert sorted(run.info.run_name for run in runs) == [f"h{3 + i} · {ids[i].split('-', 2)[2]}" for i in (0, 1)]
    shown = {run.data.tags["variant"]: run.data.tags["mlflow.runColor"] for run in runs}
    assert shown == {"h3": PALETTE[0], "h4": PALETTE[1]}
