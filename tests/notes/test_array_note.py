"""The note of a whole job array."""

from __future__ import annotations

import dataclasses

from tdmpc_lab.jobs.record import JobRecord
from tdmpc_lab.jobs.state import JobStatus, State
from tdmpc_lab.notes.render import render_array_note


def task(number: int, count: int = 2) -> JobRecord:
    return JobRecord(
        id=f"7_{number}",
        array_id="7",
        array_task=number,
        experiment="demo",
        env_id="Pendulum-v1",
        about="# how far to plan",
        why="is 9 too long?",
        group="0",
        seed=1,
        cluster="slurm",
        resources={"cpus": 4, "array_limit": 2},
        overrides=("agent.lr=0.001", f"agent.horizon={4 + 2 * number}", "sweep=off"),
        command=("tdmpc-lab", "submit", "demo.yaml", "sweep.agent.horizon=[4, 6]", "agent.lr=0.001"),
        spec_file="demo.yaml",
        submitted_at="2026-02-03T09:14:22+01:00",
        steps_total=5000,
        sweep={"index": number, "count": count, "point": {"agent.horizon": 4 + 2 * number}},
    )


DONE = JobStatus(state=State.COMPLETED, attempt=1, node="node7", step=5000, steps=5000, elapsed_s=192.4)
WAITS = JobStatus(state=State.PENDING, cause="Priority", steps=5000)


def test_one_line_for_each_task() -> None:
    note = render_array_note("7", [(task(0), DONE), (task(1), WAITS)])
    assert note.splitlines() == [
        "##### 7 - 2026-02-03_09-14-22",
        "- \\# how far to plan",
        "- why: is 9 too long?",
        "- sweep of 2: agent.horizon",
        "- overrides: agent.lr=0.001",
        "- demo · seed 1 · Pendulum-v1 · 5,000 steps · slurm (cpus 4, array_limit 2)",
        "- 1 PENDING, 1 COMPLETED",
        "- folders `jobs/7_*` · submitted by `tdmpc-lab submit demo.yaml 'sweep.agent.horizon=[4, 6]' agent.lr=0.001`",
        "",
        "- `7_0` agent.horizon=4: COMPLETED in 3:12 on node7, step 5,000",
        "- `7_1` agent.horizon=6: waiting: Priority",
    ]


def test_a_part_of_a_larger_sweep_and_rows_without_changes() -> None:
    bare = dataclasses.replace(task(0), sweep={"index": 0, "count": 4, "point": {}}, why="", about="")
    lines = render_array_note("7", [(bare, DONE)]).splitlines()
    assert lines[1:3] == ["- demo", "- sweep of 1 of 4: rows written out"]
    assert lines[-1].startswith("- `7_0` nothing changed: COMPLETED")


def test_a_swept_seed_is_not_said_to_be_that_of_the_first_task() -> None:
    tasks = [
        (dataclasses.replace(task(n), seed=n, sweep={"index": n, "count": 2, "point": {"train.seed": n}}), DONE)
        for n in range(2)
    ]
    lines = render_array_note("7", tasks).splitlines()
    assert "- sweep of 2: train.seed" in lines
    assert "- demo · Pendulum-v1 · 5,000 steps · slurm (cpus 4, array_limit 2)" in lines
