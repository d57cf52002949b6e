"""A job that lives is seen to live, whatever the user's shell, the spec or a newer SLURM bring with them."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from slurm_fixtures import Lab, stand_in

# Options of SLURM's commands as variables of a shell; each of them changes what a command does or prints.
OPTIONS = {
    "SQUEUE_PARTITION": "week", "SQUEUE_STATES": "COMPLETED", "SQUEUE_USERS": "nobody", "SQUEUE_FORMAT": "%j",
    "SQUEUE_NAMES": "x", "SQUEUE_QOS": "x", "SACCT_FORMAT": "JobName", "SACCT_FEDERATION": "1",
    "SINFO_PARTITION": "week", "SINFO_FORMAT": "%D", "SCONTROL_FEDERATION": "1", "SBATCH_PARTITION": "month",
    "SBATCH_NO_REQUEUE": "1", "SBATCH_CLUSTERS": "elsewhere", "SBATCH_EXPORT": "NONE", "SALLOC_PARTITION": "month",
    "SCANCEL_STATE": "RUNNING", "SCANCEL_PARTITION": "week", "SCANCEL_NAME": "x", "SCANCEL_INTERACTIVE": "1",
    "SRUN_CPUS_PER_TASK": "99", "SRUN_EXPORT_ENV": "NONE", "SLURM_CLUSTERS": "elsewhere", "SLURM_PARTITION": "month",
    "SLURM_EXPORT_ENV": "NONE", "SLURM_TIME_FORMAT": "relative", "SLURM_BITSTR_LEN": "1",
}  # fmt: skip


def test_options_in_the_users_shell_change_nothing(lab: Lab) -> None:
    waits = ("slurm.time=0:16:00", "--cluster", "slurm", "--skip-preflight", "--json")  # longer than the limit
    job = json.loads(lab.run("submit", "experiments/quick.yaml", *waits, **OPTIONS).stdout)["jobs"][0]["id"]
    shown = lab.slurm("scontrol", "show", "job", job)
    assert "Partition=test" in shown
    assert "Requeue=1" in shown
    told = ("PENDING", "the partition's time limit is 15:00, you asked for 16:00")  # as soon as SLURM has looked at it

    def is_told() -> bool:
        (seen,) = json.loads(lab.run("status", "--json", **OPTIONS).stdout)
        return (seen["state"], seen["cause"]) == told

    lab.until(is_told)
    points = {point["name"]: point for point in json.loads(lab.run("doctor", "--json", **OPTIONS).stdout)}
    assert "partitions: test, day, week, month" in points["slurm"]["found"]
    assert points["accounting"]["found"] == "on"
    lab.run("cancel", job, **OPTIONS)
    assert lab.queue() == []
    (seen,) = json.loads(lab.run("status", "--json", **OPTIONS).stdout)
    assert seen["state"] == "CANCELLED"


@pytest.fixture(scope="module")
def lab_with_two(
    cluster: object, empty_store: object, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Lab, str, str]]:
    """Two jobs at work, whose specs have a `set -e` before them, no environment of the user and a deadline."""
    lab = Lab(tmp_path_factory.mktemp("living") / "project", cluster, empty_store)  # type: ignore[arg-type]
    slow = ("experiments/moody.yaml", "env.options.slow=0.1", "train.steps=100000", "train.checkpoint_every=40")
    own = ('slurm.setup=["set -e"]', "slurm.extra={export: NONE, deadline: now+65minutes}")
    jobs = [lab.submit(*slow, *own, f"train.seed={seed}") for seed in (1, 2)]
    lab.until(lambda: all(any(row["step"] >= 60 for row in lab.metrics(job)) for job in jobs), 120)
    yield lab, *jobs
    lab.cancel_all()


@pytest.mark.xdist_group("living jobs")
@pytest.mark.parametrize(
    ("squeue", "sacct"),
    [
        ('"$real" "$@" | sed "s/|RUNNING|/|EXPEDITING|/"', 'exec "$real" "$@"'),  # a word of a newer version
        ("exit 0", "exit 0"),  # neither knows it
        ("exit 0", 'echo "Slurm accounting storage is disabled" >&2; exit 1'),
        ("exit 0", '"$real" "$@" | sed "s/|RUNNING|/|NODE_FAIL|/"'),  # the node is not seen, but runs on
    ],
)
def test_a_living_job_is_never_called_gone(squeue: str, sacct: str, lab_with_two: tuple[Lab, str, str]) -> None:
    lab, job, _ = lab_with_two
    stand_in(lab, "squeue", squeue)
    path = stand_in(lab, "sacct", sacct)
    (seen,) = json.loads(lab.run("status", job, "--json", PATH=path).stdout)
    assert (seen["state"], seen["step"] > 0) == ("RUNNING", True)
    known = seen["slurm"] is not None
    assert known or "its process sends heartbeats" in seen["cause"]
    refused = lab.run("resume", job, "--cluster", "slurm", code=2, PATH=path)
    assert f"job {job} is RUNNING" in refused.stderr
    beside = lab.run("rerun", job, "--cluster", "slurm", "--dry-run", "--skip-preflight", PATH=path)
    assert f"job {job} is RUNNING and not over" in beside.stderr
    if not known:
        refused = lab.run("cancel", job, code=1, PATH=path)
        assert f"End it where it runs: process {lab.events(job)[0]['pid']} on tcml-node" in refused.stderr
    assert "nothing to remove" in lab.run("gc", job, "--yes", PATH=path).stdout


@pytest.mark.xdist_group("living jobs")
def test_lines_and_options_of_the_user_leave_the_restart_alone(lab_with_two: tuple[Lab, str, str]) -> None:
    """One is to continue after a signal as before the time limit, the other to save and stop."""
    lab, job, other = lab_with_two
    lab.slurm("scancel", "--signal=USR2", job)
    saved = lab.run("cancel", other, "--save")
    assert "saved at step" in saved.stdout
    lab.until(lambda: other not in lab.queue(), 30)
    assert lab.slurm("sacct", "-X", "-n", "-P", "-j", other, "--format=State").startswith("CANCELLED")
    lab.until(lambda: "Restarts=1" in lab.slurm("scontrol", "show", "job", job), 30)
    assert lab.status(job)["state"] == "PENDING"
