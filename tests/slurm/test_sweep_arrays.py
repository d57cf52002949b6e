"""A sweep as one job array on a real cluster; what an interrupted submit leaves, and who finds it."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import time

import pytest
from slurm_fixtures import Lab

from tdmpc_lab.app.queue.status import job_views, unrecorded_views
from tdmpc_lab.app.submit import submit as arrays
from tdmpc_lab.app.submit.code import JobCode
from tdmpc_lab.app.submit.submit import JobPlan
from tdmpc_lab.cli.main import main
from tdmpc_lab.jobs.find import job_ids
from tdmpc_lab.jobs.paths import JobPaths, Project

SIX = "sweep={agent.horizon: [3, 4, 5], train.seed: [0, 1]}"


def submit(lab: Lab, *words: str) -> list[str]:
    done = lab.run("submit", *words, "--cluster", "slurm", "--skip-preflight", "--json")
    return [job["id"] for job in json.loads(done.stdout)["jobs"]]


def states(lab: Lab, ids: list[str]) -> list[str]:
    return [view.status.state.value for view in job_views(lab.project, ids) if view.status]


def in_process(lab: Lab, monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    """`tdmpc-lab submit` in this process, where it can be patched."""
    monkeypatch.chdir(lab.root)
    monkeypatch.syspath_prepend(str(lab.root))
    return main(["submit", *words, "--cluster", "slurm", "--skip-preflight"])


def held(lab: Lab, job_id: str) -> bool:
    return "JobHeldUser" in lab.slurm("squeue", "--noheader", "--format=%r", "--jobs", job_id)


@pytest.mark.timeout(300)
def test_a_sweep_of_six_with_two_at_once_of_which_one_is_cancelled(lab: Lab) -> None:
    ids = submit(lab, "experiments/quick.yaml", SIX, "--array-limit", "2")
    array = ids[0].partition("_")[0]
    assert ids == [f"{array}_{task}" for task in range(6)]
    for task, (horizon, seed) in enumerate([(3, 0), (3, 1), (4, 0), (4, 1), (5, 0), (5, 1)]):
        record = json.loads(lab.paths(ids[task]).record.read_text())
        assert (record["array_id"], record["array_task"]) == (array, task)
        assert record["sweep"]["point"] == {"agent.horizon": horizon, "train.seed": seed}
        assert f"(job {task + 1} of 6)" in lab.note(ids[task])
    lab.run("cancel", ids[4])
    ended = ("COMPLETED", "CANCELLED")
    kept = [job_id for job_id in ids if job_id != ids[4]]
    most = 0
    end = time.monotonic() + 200
    while not all(state in ended for state in states(lab, kept)):
        most = max(most, states(lab, ids).count("RUNNING"))
        assert time.monotonic() < end, lab.run("status").stdout
        time.sleep(0.5)
    assert most == 2
    assert states(lab, kept) == ["COMPLETED"] * 5
    assert not lab.events(ids[4])
    assert states(lab, [ids[4]]) == ["CANCELLED"]
    assert {row["id"] for row in json.loads(lab.run("status", array, "--json").stdout)} == set(ids)
    note = lab.run("note", array).stdout
    assert "- sweep of 6: agent.horizon, train.seed\n" in note
    assert "- 5 COMPLETED, 1 CANCELLED\n" in note
    assert f"- `{ids[4]}` agent.horizon=5, train.seed=0: CANCELLED: " in note
    assert f"- `{ids[5]}` agent.horizon=5, train.seed=1: COMPLETED in " in note
    assert re.search(rf"(?m)^##### {array} - ", note)
    done = lab.run("wait", *kept)
    assert done.stdout.count("COMPLETED") >= 5


def test_a_whole_array_is_cancelled_by_its_id(lab: Lab) -> None:
    ids = submit(lab, "experiments/moody.yaml", "sweep.train.seed=[0, 1, 2]", "env.options.slow=0.5", "--array-limit=1")
    array = ids[0].partition("_")[0]
    lab.wait_for(ids[0], "RUNNING")
    done = lab.run("cancel", array, "--json")
    assert set(json.loads(done.stdout)) == set(ids)
    lab.until(lambda: not lab.slurm("squeue", "--noheader", "--jobs", array).strip())
    assert not lab.events(ids[2])
    assert states(lab, ids) == ["CANCELLED"] * 3
    assert "- 3 CANCELLED\n" in lab.run("note", array).stdout


@pytest.mark.timeout(300)
def test_a_task_that_is_started_again_leaves_the_others_alone(lab: Lab) -> None:
    """The last task of an array has the array's own id as its SLURM_JOB_ID."""
    ids = submit(lab, "experiments/moody.yaml", "sweep.train.seed=[0, 1]", "env.options.slow=1.0")
    array = ids[0].partition("_")[0]

    def trains(job_id: str) -> bool:
        return any(event["event"] == "ready" for event in lab.events(job_id))

    lab.until(lambda: trains(ids[0]) and trains(ids[1]), 120)
    assert f"JobId={array} " in lab.slurm("scontrol", "show", "job", ids[1])
    lab.slurm("scancel", "--signal=USR2", ids[1])
    lab.until(lambda: "Restarts=1" in lab.slurm("scontrol", "show", "job", ids[1]), 90)
    assert [event["event"] for event in lab.events(ids[1]) if event["event"] == "preempted"] == ["preempted"]
    other = lab.slurm("scontrol", "show", "job", ids[0])
    assert "Restarts=0" in other
    assert "JobState=RUNNING" in other
    lab.run("cancel", array)


def test_a_sweep_of_one_is_no_array_and_specs_go_together(lab: Lab) -> None:
    (lab.project.experiments / "two.yaml").write_text(
        (lab.project.experiments / "quick.yaml").read_text() + "sweep: {train.seed: [0, 1]}\n"
    )
    ids = submit(lab, "experiments/quick.yaml", "experiments/two.yaml", "slurm.partition=day")
    assert len(ids) == 3
    assert ids[0].isdecimal()
    assert [job_id.partition("_")[2] for job_id in ids[1:]] == ["0", "1"]
    one = submit(lab, "experiments/quick.yaml", "sweep.train.seed=[7]")
    assert [job_id.isdecimal() for job_id in one] == [True]
    lab.slurm("scancel", *ids, *one)


def test_an_array_is_cut_at_what_the_cluster_allows(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tdmpc_lab.launch.slurm.max_array_size", lambda: 2)
    words = ["experiments/quick.yaml", "sweep.train.seed=[0, 1, 2, 3]", "--array-limit", "1"]
    assert in_process(lab, monkeypatch, *words) == 0
    ids = job_ids(lab.project)
    first, second = dict.fromkeys(job_id.partition("_")[0] for job_id in ids)
    assert ids == [f"{first}_0", f"{first}_1", f"{second}_0", f"{second}_1"]
    assert f"afterany:{first}" in lab.slurm("squeue", "--noheader", "--format=%E", "--jobs", second)
    points = [json.loads(lab.paths(job_id).record.read_text())["sweep"] for job_id in ids]
    assert [(point["index"], point["count"]) for point in points] == [(0, 4), (1, 4), (2, 4), (3, 4)]
    assert "- sweep of 2 of 4: train.seed\n" in lab.note(second)
    lab.slurm("scancel", first, second)


def killed_while(lab: Lab, function: str, *words: str) -> None:
    """Submit, and kill the process when it calls `function`."""
    code = (
        "import os, signal, sys, importlib\n"
        "module, name = sys.argv[1].rsplit('.', 1)\n"
        "setattr(importlib.import_module(module), name, lambda *a, **k: os.kill(os.getpid(), signal.SIGKILL))\n"
        "from tdmpc_lab.cli.main import main\n"
        "main(sys.argv[2:])\n"
    )
    command = [lab.command()[0], "-c", code, function, "submit", *words, "--cluster", "slurm", "--skip-preflight"]
    done = subprocess.run(command, cwd=lab.root, env=lab.environ(), capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr


@pytest.mark.parametrize("words", [[], ["sweep.train.seed=[0, 1]"]], ids=["job", "array"])
def test_a_submit_that_is_killed_leaves_held_jobs_that_status_names(lab: Lab, words: list[str]) -> None:
    killed_while(lab, "tdmpc_lab.app.submit.submit._record", "experiments/quick.yaml", *words)
    assert job_ids(lab.project) == []
    (left,) = unrecorded_views(lab.project)
    assert left.id.isdecimal()
    assert held(lab, left.id)
    text = lab.run("status").stdout
    assert left.id in text
    assert (
        f"without a whole record: its submit was interrupted. It does not start; remove it: tdmpc-lab cancel {left.id}"
        in text
    )
    (row,) = json.loads(lab.run("status", "--json").stdout)
    assert (row["id"], row["state"]) == (left.id, "UNKNOWN")
    other = submit(lab, "experiments/quick.yaml", "slurm.extra={begin: now+1hour}")  # is not taken for it
    assert [view.id for view in unrecorded_views(lab.project)] == [left.id]
    assert left.id in lab.run("cancel", left.id).stdout
    lab.until(lambda: unrecorded_views(lab.project) == [])
    assert not list((lab.project.jobs / ".submitit").glob("*.submit"))
    lab.slurm("scancel", *other)


def test_a_submit_that_is_killed_before_the_release_can_be_released(lab: Lab) -> None:
    killed_while(lab, "tdmpc_lab.launch.slurm.release", "experiments/quick.yaml", "sweep.train.seed=[0, 1]")
    first, _ = job_ids(lab.project)
    array = first.partition("_")[0]
    assert unrecorded_views(lab.project) == []  # they are jobs like others
    assert held(lab, array)
    assert "scontrol release" in lab.status(first)["cause"]
    lab.slurm("scontrol", "release", array)
    lab.wait_for(first, "COMPLETED")


def test_a_record_that_can_t_be_written_takes_the_whole_array_back(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full_disk(project: Project, ready: JobPlan, code: JobCode, job_id: str) -> JobPaths:
        if job_id.endswith("_1"):
            raise OSError(28, "No space left on device", str(project.jobs / job_id))
        return record(project, ready, code, job_id)

    record = arrays._record
    monkeypatch.setattr(arrays, "_record", full_disk)
    assert in_process(lab, monkeypatch, "experiments/quick.yaml", "sweep.train.seed=[0, 1]") == 3
    assert "No space left on device" in capsys.readouterr().err
    assert lab.queue() == []
    assert job_ids(lab.project) == []
    assert not list(lab.project.notes.glob("*"))
    assert lab.run("status").stdout.startswith("no jobs yet")
    assert not list((lab.project.jobs / ".submitit").glob("*.submit"))
