"""Jobs stopped on the way, by their time limit, by SLURM, by a user or by a disk: they continue, or say why not."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from slurm_fixtures import Lab, Sim

from tdmpc_lab.files import read_jsonl

pytestmark = pytest.mark.timeout(420)

# Ten steps a second at most, on any machine.
SLOW = ("experiments/moody.yaml", "env.options.slow=0.1", "train.checkpoint_every=100")


def on(node: str) -> str:
    """The override that has a job start on this node; it may continue elsewhere."""
    return f"slurm.extra.exclude=tcml-node[{','.join(n for n in '1234' if n != node[-1])}]"


def hurry(lab: Lab) -> None:
    """What starts from now on does not dawdle."""
    environment = lab.root / "moody_env.py"
    environment.write_text(environment.read_text().replace("time.sleep(self.slow)", "pass"))


def rows_are_whole(lab: Lab, job: str, until: int) -> None:
    """No step missing or doubled, in one file, up to the step `until`."""
    rows = lab.metrics(job)
    assert [r["step"] for r in rows if "updates" in r] == list(range(20, until + 1, 20))
    assert [r["step"] for r in rows if "return" in r] == list(range(20, until + 1, 20))
    assert [r["step"] for r in lab.metrics(job, "eval")] == [*range(40, until, 40), until]
    attempts = [r["attempt"] for r in rows]
    assert attempts == sorted(attempts)


def kinds(lab: Lab, job: str, *wanted: str) -> list[dict[str, Any]]:
    return [e for e in lab.events(job) if e["event"] in wanted]


def runs_of(lab: Lab, job: str) -> list[Any]:
    """The MLflow runs of a job."""
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{lab.root}/mlruns/mlflow.db")
    ids = [e.experiment_id for e in client.search_experiments()]
    return list(client.search_runs(ids, filter_string=f"tags.`tdmpc_lab.job_id` = '{job}'"))


def running_at(lab: Lab, job: str, step: int) -> Callable[[], bool]:
    return lambda: any(row["step"] >= step for row in lab.metrics(job))


def test_the_time_limit_twice_and_then_done(lab: Lab) -> None:
    """One folder, one metrics file without a gap, one MLflow run, one note."""
    slow = ("experiments/moody.yaml", "env.options.slow=0.05", "slurm.time=0:02:00")
    job = lab.submit(*slow, "train.steps=3500")  # more than two attempts can do
    short = lab.submit(*slow, "train.steps=50000", "slurm.max_requeues=0")
    held = lab.wait_for(short, "TIMEOUT", seconds=200)
    assert f"tdmpc-lab resume {short}" in held["cause"]
    lab.until(lambda: f"tdmpc-lab resume {short}" in lab.note(short), 20)
    steps = [int(p.stem.removeprefix("step_")) for p in lab.paths(short).checkpoints.glob("step_*.pt")]
    assert held["step"] == max(steps)

    lab.until(lambda: len(kinds(lab, job, "preempted")) >= 2, 300)
    hurry(lab)
    done = lab.wait_for(job, "COMPLETED", seconds=300)
    stops = kinds(lab, job, "preempted")
    assert {(e["signal"], e["why"]) for e in stops} == {("SIGUSR2", "time limit")}
    assert (done["attempt"], done["step"]) == (len(stops) + 1, 3500)
    rows_are_whole(lab, job, 3500)
    assert [e["attempt"] for e in kinds(lab, job, "started")] == list(range(1, len(stops) + 2))
    assert [e["step"] for e in kinds(lab, job, "resumed")] == [e["step"] for e in stops]
    lab.run("sync", job)  # without a server the job leaves its values to whoever looks
    (run,) = runs_of(lab, job)
    assert run.info.status == "FINISHED"
    assert f"attempt {len(stops) + 1}" in lab.note(job)


def test_requeued_by_hand_and_preempted_by_a_higher_partition(lab: Lab) -> None:
    by_hand = lab.submit(*SLOW, "train.steps=1000", "train.seed=2")
    half = ("train.steps=1000", "slurm.cpus=8", on("tcml-node3"))
    graced = lab.submit(*SLOW, *half, "train.seed=3", "slurm.partition=week")
    pushed = lab.submit(*SLOW, *half, "slurm.partition=day")
    jobs = (by_hand, graced, pushed)
    lab.until(lambda: all(running_at(lab, job, 60)() for job in jobs), 180)
    hurry(lab)
    lab.slurm("scontrol", "requeue", by_hand)
    urgent = lab.slurm(
        "sbatch", "--parsable", "--partition=urgent", "--nodelist=tcml-node3", "--cpus-per-task=16", "--mem=100M",
        f"--chdir={lab.root}", "--output=/dev/null", "--wrap=sleep 20",
    ).strip()  # fmt: skip
    for job in jobs:
        done = lab.wait_for(job, "COMPLETED", seconds=240)
        assert done["attempt"] == 2, job
        rows_are_whole(lab, job, 1000)
        (stop,) = kinds(lab, job, "preempted")
        (again,) = kinds(lab, job, "resumed")
        assert again["step"] == stop["step"] > 0
        assert len(runs_of(lab, job)) == 1
    assert kinds(lab, graced, "preempted")[0]["signal"] == "SIGUSR2"
    assert kinds(lab, pushed, "preempted")[0]["signal"] in ("SIGTERM", "SIGUSR2")
    assert urgent.isdecimal()


@pytest.fixture(scope="module")
def broken(empty_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Sim, Lab]]:
    """A cluster to be broken, and a project that submits to it."""
    sim = Sim()
    sim("up")
    lab = Lab(tmp_path_factory.mktemp("broken") / "project", sim.conf, empty_store)
    yield sim, lab
    lab.cancel_all()
    sim("down", "--remove")


@pytest.mark.xdist_group("broken cluster")
def test_a_node_dies_and_a_slurmd_dies_alone(
    cluster: Path, broken: tuple[Sim, Lab], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A power cut: the next attempt starts from the last checkpoint. A lost slurmd: the job runs twice at once, one
    process owns its folder, and the other one stops without a trace."""
    sim, lab = broken
    monkeypatch.setenv("SLURM_CONF", str(sim.conf))
    # A whole node each.
    dead = lab.submit(*SLOW, "train.steps=1000", "slurm.cpus=16")
    lost = lab.submit(*SLOW, "train.steps=1500", "slurm.cpus=16")
    lab.until(lambda: kinds(lab, dead, "checkpoint") and running_at(lab, lost, 100)(), 150)
    hurry(lab)
    sim("kill-node", kinds(lab, dead, "started")[0]["host"])
    sim("kill-node", kinds(lab, lost, "started")[0]["host"], "--slurmd-only")
    pid = kinds(lab, lost, "started")[0]["pid"]
    lab.until(lambda: all(len(kinds(lab, job, "started")) == 2 for job in (dead, lost)), 180)
    lab.until(
        lambda: not Path(f"/proc/{pid}").exists() or b"tdmpc" not in Path(f"/proc/{pid}/cmdline").read_bytes(), 30
    )
    for job, steps in ((dead, 1000), (lost, 1500)):
        done = lab.wait_for(job, "COMPLETED", seconds=240)
        assert done["attempt"] == 2
        rows_are_whole(lab, job, steps)
        marks = [e.get("attempt") for e in kinds(lab, job, "started", "finished")]
        assert marks == [1, 2, 2]
    assert kinds(lab, dead, "resumed")[0]["step"] >= 100
    assert "attempt 2 of this job has taken over" in lab.log(lost)


@pytest.mark.xdist_group("broken cluster")
def test_the_controller_is_down(cluster: Path, broken: tuple[Sim, Lab], monkeypatch: pytest.MonkeyPatch) -> None:
    """Status says so, and the last known state; nothing is submitted or written; then all is as before."""
    sim, lab = broken
    monkeypatch.setenv("SLURM_CONF", str(sim.conf))
    job = lab.submit(*SLOW, "train.steps=100000")
    waits = lab.submit("experiments/quick.yaml", "slurm.extra.begin=now+1hour")
    killed = lab.submit("experiments/moody.yaml", "env.options.kill_at=30")
    lab.until(running_at(lab, job, 40), 120)
    cause = lab.wait_for(killed, "FAILED")["cause"]
    lab.until(lambda: "FAILED" in lab.slurm("sacct", "-X", "-n", "-P", "-j", killed, "--format=State"), 30)
    before = sorted(p.name for folder in (lab.project.jobs, lab.project.notes) for p in folder.iterdir())
    sim("stop-controller")
    try:
        shown = {seen["id"]: seen for seen in json.loads(lab.run("status", "--json", code=3).stdout)}
        assert (shown[job]["state"], shown[waits]["state"]) == ("RUNNING", "PENDING")
        assert (shown[killed]["state"], shown[killed]["eta_s"]) == ("FAILED", None)
        assert shown[killed]["cause"] == cause
        assert "can't be reached" in shown[waits]["cause"]
        assert "can't be reached" in shown[job]["cause"]
        again = ["submit", "experiments/quick.yaml", "train.seed=5", "--cluster", "slurm"]
        for options in ([], ["--skip-preflight"]):  # then it is sbatch that gets no answer
            refused = lab.run(*again, *options, code=3)
            assert "SLURM does not answer" in refused.stderr
        refused = lab.run("cancel", job, code=3)
        assert "SLURM does not answer" in refused.stderr
        assert sorted(p.name for folder in (lab.project.jobs, lab.project.notes) for p in folder.iterdir()) == before
    finally:
        sim("start-controller")
    lab.until(lambda: lab.status(job)["cause"] is None, 60)
    assert lab.status(waits)["state"] == "PENDING"
    lab.slurm("scontrol", "requeuehold", job)  # the cancellation did not reach SLURM: this is none
    lab.until(lambda: lab.status(job)["state"] == "PENDING", 60)
    assert "scontrol release" in lab.status(job)["cause"]
    assert lab.run("resume", job, "--dry-run", code=2).stderr
    lab.slurm("scontrol", "release", job)
    lab.until(lambda: len(kinds(lab, job, "started")) == 2 and lab.status(job)["state"] == "RUNNING", 150)
    assert [event["event"] for event in kinds(lab, job, "stopped", "preempted")] == ["preempted"]
    lab.until(running_at(lab, job, 40), 60)
    saved = lab.run("cancel", job, "--save")
    assert "saved at step" in saved.stdout
    assert lab.wait_for(job, "CANCELLED")["cause"].startswith("cancelled by ")


def test_cancelled_while_it_waits_and_while_it_runs_and_resumed(lab: Lab) -> None:
    """With and without --save, by tdmpc-lab and by scancel; what was saved continues as a new job, whole by itself."""
    waits = lab.submit(*SLOW, "slurm.time=0:16:00")
    saved = lab.submit(*SLOW, "train.steps=100000")
    behind = lab.submit(*SLOW, "train.steps=100000", "train.seed=2", "name=other")
    lab.until(lambda: running_at(lab, saved, 200)() and running_at(lab, behind, 100)(), 150)
    waiting = lab.status(waits)
    assert waiting["state"] == "PENDING"
    assert waiting["cause"] == "the partition's time limit is 15:00, you asked for 16:00"

    done = json.loads(lab.run("cancel", "--experiment", "moody", "--save", "--json").stdout)
    assert set(done) == {waits, saved}
    assert done[saved].startswith("saved at step")
    assert lab.status(waits)["state"] == "CANCELLED"
    assert "CANCELLED" in lab.note(waits)
    assert lab.status(behind)["state"] == "RUNNING"
    lab.slurm("scancel", behind)  # by hand, past this tool
    lab.until(lambda: saved not in lab.queue() and behind not in lab.queue(), 60)
    ended = lab.wait_for(behind, "CANCELLED", seconds=60)
    assert ended["cause"].startswith("cancelled in SLURM by ")
    lab.run("wait", waits, saved, behind, code=1)
    assert "CANCELLED" in lab.note(behind)
    state = lab.slurm("sacct", "-X", "-n", "-P", "-j", saved, "--format=State")
    assert state.startswith("CANCELLED")

    at = lab.status(saved)["step"]
    words = ("--steps", str(at + 60), "env.options.slow=0.0", "--cluster", "slurm", "--json")
    new = json.loads(lab.run("resume", saved, *words).stdout)["jobs"][0]["id"]
    last = json.loads(lab.run("resume", behind, *words[:1], "400", *words[2:]).stdout)["jobs"][0]["id"]
    assert f"[{saved}]({saved}.md)" in lab.note(new)
    assert read_jsonl(lab.paths(saved).requests)[0][-1]["job"] == new
    before = lab.metrics(saved)  # the new one may have begun already: these are its first rows in any case
    assert before and lab.metrics(new)[: len(before)] == before
    lab.run("wait", new, last)
    assert lab.status(new)["step"] == at + 60
    steps = [r["step"] for r in lab.metrics(new) if "return" in r]
    assert steps == list(range(20, at + 61, 20))


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a small file system, which only root can")
def test_a_full_disk_is_told_and_harms_nobody_else(make_lab: Callable[..., Lab], tmp_path: Path) -> None:
    lab, other = make_lab(), make_lab()
    lab.project.jobs.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(lab.project.jobs)], check=True)
    try:
        full = lab.submit(*SLOW, "train.steps=100000")
        fine = other.submit("experiments/quick.yaml")
        lab.until(running_at(lab, full, 60), 120)
        filler = lab.project.jobs / "filler"
        with filler.open("wb", buffering=0) as file, pytest.raises(OSError, match="No space left"):
            while True:
                file.write(bytes(4096))
        ended = lab.wait_for(full, "FAILED", seconds=60)
        assert "the disk is full" in ended["cause"]
        assert "tdmpc-lab resume" in ended["cause"]
        assert kinds(lab, full, "failed")
        other.wait_for(fine, "COMPLETED", seconds=90)
        lab.until(lambda: full not in lab.queue(), 60)
    finally:
        lab.cancel_all()
        subprocess.run(["umount", "--lazy", str(lab.project.jobs)], check=True)
