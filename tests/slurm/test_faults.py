"""When the cluster is not as it should be: many submits at once, no accounting, a controller that goes away."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable
from datetime import datetime

import pytest
from slurm_fixtures import Lab, Sim, stand_in

from tdmpc_lab.jobs.find import job_ids

SUBMITS = 20


@pytest.mark.timeout(300)
def test_twenty_submits_at_once(start_cluster: Callable[..., Sim], make_lab: Callable[..., Lab]) -> None:
    """From as many processes: each job is recorded, none twice, none starts before its record is complete."""
    lab = make_lab(start_cluster(accounting=False))
    lab.slurm("scontrol", "update", "NodeName=ALL", "State=DRAIN", "Reason=test")  # nothing starts, all wait
    options = ["--cluster=slurm", "--skip-preflight", "--json"]
    processes = [
        subprocess.Popen(
            lab.command("submit", "experiments/quick.yaml", f"train.seed={seed}", *options),
            cwd=lab.root,
            env=lab.environ(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for seed in range(SUBMITS)
    ]
    seeds = {}
    for seed, process in enumerate(processes):
        out, err = process.communicate(timeout=120)
        assert process.returncode == 0, err
        (job,) = json.loads(out)["jobs"]
        seeds[job["id"]] = seed
    assert len(seeds) == SUBMITS
    assert sorted(lab.queue()) == sorted(seeds)
    assert sorted(job_ids(lab.project)) == sorted(seeds)
    for job, seed in seeds.items():
        assert re.search(rf"^ +seed: {seed}$", lab.paths(job).resolved.read_text(), re.MULTILINE)
        assert f"seed {seed} " in lab.note(job)
    jobs = json.loads(lab.run("status", "--json").stdout)
    assert {job["state"] for job in jobs} == {"PENDING"}
    assert not any("held" in job["cause"].lower() for job in jobs)
    first = min(seeds, key=int)
    lab.run("cancel", "--yes", *(job for job in seeds if job != first))
    lab.slurm("scontrol", "update", "NodeName=ALL", "State=RESUME")
    assert lab.wait_for(first, "COMPLETED")["step"] == 80
    states = [job["state"] for job in json.loads(lab.run("status", "--json").stdout)]
    assert sorted(states) == ["CANCELLED"] * (SUBMITS - 1) + ["COMPLETED"]


def test_without_accounting(start_cluster: Callable[..., Sim], make_lab: Callable[..., Lab]) -> None:
    """There is no sacct: the jobs' own words and squeue tell how they ended."""
    lab = make_lab(start_cluster(accounting=False))
    assert lab.slurm("sacct", code=1) == ""
    well = lab.submit("experiments/quick.yaml")
    badly = lab.submit("experiments/moody.yaml", "env.options.fail_at=30")
    killed = lab.submit("experiments/moody.yaml", "env.options.kill_at=30")
    waits = lab.submit("experiments/quick.yaml", "train.seed=2", "slurm.extra.begin=now+1hour")
    lab.run("cancel", waits)
    assert lab.wait_for(waits, "CANCELLED")["attempt"] == 0
    assert lab.wait_for(well, "COMPLETED")["step"] == 80
    assert "the puck left the universe" in lab.wait_for(badly, "FAILED")["cause"]
    assert "log.err" in lab.wait_for(killed, "FAILED")["cause"]


def test_a_job_that_is_killed_outright(lab: Lab) -> None:
    """How long it ran and what ended it is told; its note and the roll-up are brought up to date by whoever looks."""
    quiet = ("env.options.slow=0.05", "train.steps=9000", "train.log_every=9000", "train.checkpoint_every=9000")
    job = lab.submit("experiments/moody.yaml", *quiet, "eval=off")
    lab.until(lambda: any(event["event"] == "ready" for event in lab.events(job)), 90)
    time.sleep(8)  # in which it says nothing but that it lives
    (start,) = [event for event in lab.events(job) if event["event"] == "started"]
    os.kill(start["pid"], signal.SIGKILL)
    ran = (datetime.now().astimezone() - datetime.fromisoformat(start["time"])).total_seconds()
    lab.until(lambda: job not in lab.queue())
    lab.until(lambda: "FAILED" in lab.slurm("sacct", "-X", "-n", "-P", "-j", job, "--format=State"))
    assert "RUNNING" in lab.note(job)
    seen = lab.status(job)
    assert seen["state"] == "FAILED"
    assert "SIGKILL" in seen["cause"]
    assert ran - 5 < seen["elapsed_s"] < ran + 2  # it gives a sign every three seconds
    for text in (lab.note(job), lab.project.rollup.read_text()):
        assert "FAILED" in text
        assert "SIGKILL" in text
        assert "RUNNING" not in text


@pytest.mark.parametrize("cancel_works", [True, False])
def test_a_release_that_fails(cancel_works: bool, lab: Lab) -> None:
    """The controller goes away at the last moment: nothing is left, or `status` says what is, and how to continue."""
    silent = 'echo "Unable to contact slurm controller (connect failure)" >&2; exit 1'
    path = stand_in(lab, "scontrol", f'if [ "$1" = release ]; then {silent}; fi\nexec "$real" "$@"')
    if not cancel_works:
        path = stand_in(lab, "scancel", silent)
    done = lab.run("submit", "experiments/quick.yaml", "--cluster", "slurm", "--skip-preflight", code=3, PATH=path)
    assert "Unable to contact slurm controller" in done.stderr
    assert done.stdout == ""
    if cancel_works:
        assert lab.queue() == []
        assert json.loads(lab.run("status", "--json").stdout) == []
        return
    (job,) = lab.queue()
    (seen,) = json.loads(lab.run("status", "--json").stdout)
    assert (seen["id"], seen["state"]) == (job, "PENDING")
    assert "scontrol release" in seen["cause"]
    lab.slurm("scontrol", "release", job)
    assert lab.wait_for(job, "COMPLETED")["step"] == 80


def test_status_asks_once(lab: Lab) -> None:
    """One call of squeue however many jobs there are, also while they wait."""
    calls = lab.root / "calls"
    path = stand_in(lab, "squeue", f'echo x >> {calls}\nexec "$real" "$@"')
    jobs = [lab.submit("experiments/quick.yaml", "slurm.extra.begin=now+1hour", "--again") for _ in range(3)]
    began = time.monotonic()
    done = lab.run("status", "--json", PATH=path)
    assert time.monotonic() - began < 10
    assert [job["id"] for job in json.loads(done.stdout)] == jobs
    assert calls.read_text().split() == ["x"]
