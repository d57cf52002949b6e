"""One job on a real cluster, from submit to its end, well or badly."""

from __future__ import annotations

import json

import pytest
from slurm_fixtures import Lab

from tdmpc_lab.jobs.find import job_ids
from tdmpc_lab.jobs.record import read_record

A4000_NODES = ("tcml-node3", "tcml-node4")
BY_SBATCH = ("--cluster", "slurm", "--skip-preflight")  # what the checks would find before sbatch has to


def test_a_job_completes(lab: Lab) -> None:
    """Folder, note, metrics, MLflow run and status say the same."""
    job = lab.submit("experiments/quick.yaml", "train.seed=7", "slurm.gpus=A4000:2")
    assert job.isdecimal()
    lab.wait_for(job, "COMPLETED")
    lab.wait_until_left(job)  # note and MLflow run are closed after the outcome
    status = lab.status(job)
    assert (status["step"], status["attempt"], status["cause"]) == (80, 1, None)
    assert status["node"] in A4000_NODES
    paths = lab.paths(job)
    assert paths.spec.read_text() == (lab.root / "experiments" / "quick.yaml").read_text()
    assert "seed: 7" in paths.resolved.read_text()
    assert read_record(paths).resources["gpus"] == "A4000:2"
    assert sorted(p.name for p in paths.checkpoints.glob("step_*.pt")) == ["step_000000050.pt", "step_000000080.pt"]
    assert "step 80/80" in paths.log_out.read_text()
    kinds = [event["event"] for event in lab.events(job)]
    assert kinds[0] == "started"
    assert [kind for kind in kinds if kind in ("ready", "warm_up", "finished")] == ["ready", "warm_up", "finished"]
    assert kinds.count("tracking") == 1
    assert [row["step"] for row in lab.metrics(job) if "updates" in row] == [20, 40, 60, 80]
    assert [row["step"] for row in lab.metrics(job, "eval")] == [40, 80]
    note = lab.note(job)
    assert note.count(f"##### {job} - ") == 1
    assert "- COMPLETED in " in note
    assert f"on {status['node']} (cpu, though a GPU was asked for), step 80" in note
    assert f"MLflow run [`{status['mlflow_run']}`" in note


def test_without_a_server_jobs_leave_mlflow_to_sync(lab: Lab) -> None:
    """They write no SQLite file from many machines; `status` says so, and `sync` sends the values."""
    (lab.root / "tdmpc-lab.yaml").unlink()
    job = lab.submit("experiments/quick.yaml")
    lab.until(lambda: any(event["event"] == "finished" for event in lab.events(job)))
    lab.wait_until_left(job)
    assert lab.held_runs() == {}
    said = lab.run("status", job)
    assert "COMPLETED" in said.stdout
    assert "1 job is not (all) in MLflow yet: tdmpc-lab sync" in said.stderr
    assert lab.held_runs() == {}
    assert "1 job brought in sync, 0 in sync already" in lab.run("sync").stdout
    assert lab.held_runs() == {job: "FINISHED"}
    assert [event["event"] for event in lab.events(job)].count("tracking") == 1
    assert "in MLflow" not in lab.run("status", job).stderr


def test_a_job_sees_only_its_own_slurm_job(lab: Lab) -> None:
    """What the shell's own SLURM job left in the environment does not reach the job; what the user set does."""
    leaked = {"SLURM_JOB_ID": "12", "SLURM_ARRAY_JOB_ID": "11", "SLURM_ARRAY_TASK_ID": "4", "SLURM_CPU_BIND": "none"}
    done = lab.run(
        "submit",
        "experiments/quick.yaml",
        "slurm.setup=['echo $TEAM $SLURM_JOB_ID $SLURM_ARRAY_JOB_ID $SLURM_CPU_BIND >> seen']",
        "--cluster=slurm",
        SBATCH_PARTITION="no-such",
        TEAM="blue",
        **leaked,
    )
    job = done.stdout.split(":")[0].removeprefix("job ")
    lab.until((lab.root / "seen").exists)
    assert (lab.root / "seen").read_text().split() == ["blue", job]


def test_an_exception_in_the_environment(lab: Lab) -> None:
    job = lab.submit("experiments/moody.yaml", "env.options.fail_at=30")
    status = lab.wait_for(job, "FAILED")
    assert "step raised ValueError: the puck left the universe" in status["cause"]
    assert "moody_env.py" in status["traceback"]
    lab.wait_until_left(job)
    assert "the puck left the universe" in lab.note(job)
    assert lab.run("wait", job, code=1).stdout.count("FAILED") == 1


@pytest.mark.parametrize("how", ["exit_at", "kill_at"])
def test_a_process_that_just_ends(how: str, lab: Lab) -> None:
    """No outcome of its own: SLURM's word counts, and the log is named."""
    job = lab.submit("experiments/moody.yaml", f"env.options.{how}=30")
    status = lab.wait_for(job, "FAILED")
    assert f"jobs/{job}/log.err" in status["cause"]
    assert lab.events(job)[-1]["event"] not in ("finished", "failed", "stopped")
    assert lab.run("wait", job, code=1).stdout.count("FAILED") == 1


def test_cancelled_by_hand_while_it_waits(lab: Lab) -> None:
    job = lab.submit("experiments/quick.yaml", "slurm.extra.begin=now+1hour")
    waiting = lab.status(job)
    assert (waiting["state"], waiting["attempt"]) == ("PENDING", 0)
    lab.slurm("scancel", job)
    assert "cancelled" in lab.wait_for(job, "CANCELLED")["cause"]
    assert lab.events(job) == []
    assert lab.run("wait", job, code=1).stdout.count("CANCELLED") == 1
    assert "- CANCELLED" in lab.note(job)
    assert "was over already" in lab.run("cancel", job).stdout


def test_cancelled_while_it_runs(lab: Lab) -> None:
    job = lab.submit("experiments/moody.yaml", "env.options.slow=0.2")
    lab.until(lambda: any(e["event"] == "ready" for e in lab.events(job)), 90)
    lab.run("cancel", job)
    lab.wait_for(job, "CANCELLED", seconds=30)
    lab.wait_until_left(job)
    assert "- CANCELLED" in lab.note(job)


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("slurm.partition=nope", "partition nope"),
        ("slurm.gpus=H100:1", "gpu:H100:1"),
        ("slurm.gpus=A4000:9", "gpu:A4000:9"),
        ("slurm.memory=90000G", "mem 90000G"),
    ],
)
def test_what_the_cluster_has_not_is_refused(override: str, words: str, lab: Lab) -> None:
    """Exit code 2, with what was asked for; nothing is left in the queue, in jobs/ or in notes/."""
    done = lab.run("submit", "experiments/quick.yaml", override, *BY_SBATCH, code=2)
    assert words in done.stderr
    assert done.stdout == ""
    assert lab.queue() == []
    assert job_ids(lab.project) == []
    assert json.loads(lab.run("status", "--json").stdout) == []
    left = [p.name for folder in ("jobs", "notes") for p in (lab.root / folder).rglob("*") if not p.is_dir()]
    assert set(left) <= {".lock", ".submit.lock"}


def test_a_refused_spec_does_not_stop_what_was_submitted_before(lab: Lab) -> None:
    (lab.project.experiments / "bad.yaml").write_text("extends: quick.yaml\nslurm: {partition: nope}\n")
    done = lab.run("submit", "experiments/quick.yaml", "experiments/bad.yaml", *BY_SBATCH, code=2)
    (job,) = job_ids(lab.project)
    assert f"submitted before the error: {job}" in done.stderr
    assert lab.wait_for(job, "COMPLETED")["step"] == 80
