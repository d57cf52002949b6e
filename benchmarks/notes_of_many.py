"""How long the job log takes with many notes: makes a project with N of them and times the commands.

    .venv/bin/python benchmarks/notes_of_many.py [--notes 5000] [--repeats 5]

The notes are as real ones are: a block of the tool with a table of evaluations, a person's words in every third, a
verdict in every second. One in fifty says that its job runs, and has a job folder that says how it ended; one in ten
came from a hand-written log.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path

from tdmpc_lab.app.checks.blamed import find_blamed
from tdmpc_lab.config.loader import load_spec
from tdmpc_lab.jobs.paths import Project
from tdmpc_lab.jobs.record import JobRecord
from tdmpc_lab.jobs.state import JobStatus, State
from tdmpc_lab.notes.note import put_verdict, replace_machine_part
from tdmpc_lab.notes.render import render_note

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
STEPS = 500_000
COMMANDS = (
    ["notes"],
    ["notes", "--experiment", "backprop_4", "--verdict", "bad"],
    ["notes", "--json"],
    ["notes", "--rollup"],
    ["notes", "--html", "log.html"],
)


def record_of(number: int) -> JobRecord:
    """What the submit of a job leaves."""
    return JobRecord(
        id=str(1_900_000 + number),
        experiment=f"backprop_{number % 40}",
        env_id="hockey",
        about="backprop without reward shaping, seed by seed",
        why="does backprop alone break the reward stagnation?",
        group=f"{number % 400:010x}",
        seed=number % 5,
        compare_to="baseline",
        diff=("agent.horizon 18 → 9", "reward.backprop off → on"),
        git_commit="9af4dbf0" * 5,
        git_dirty=False,
        cluster="slurm",
        resources={"partition": "day", "gpus": "2080ti:1", "cpus": 4, "memory": "16G"},
        spec_file="experiments/backprop.yaml",
        submitted_at=(BEGIN + timedelta(minutes=10 * number)).isoformat(timespec="milliseconds"),
        steps_total=STEPS,
    )


def evaluations() -> list[dict[str, object]]:
    """Twelve rows for the table."""
    return [
        {"step": 40_000 * i, "return_mean": i - 9.5, "return_std": 4.2, "return_min": -10.0, "return_max": 10.0,
         "episodes": 40, "opponent": "strong", "win": i / 13, "draw": 0.1, "loss": 0.9 - i / 13,
         "win_low": i / 13 - 0.03, "win_high": i / 13 + 0.03}
        for i in range(1, 12)
    ]  # fmt: skip


def make_note(root: Path, number: int, record: JobRecord) -> None:
    """One note; of a job that runs, its folder too."""
    state = State.RUNNING if number % 50 == 7 else State.FAILED if number % 9 == 0 else State.COMPLETED
    status = JobStatus(state=state, steps=STEPS, step=STEPS, attempt=1, node="tcml-node37", elapsed_s=11_525.0)
    if number % 10 == 3:
        note = (
            f"<!-- tdmpc-lab:imported log -->\n##### {record.id}\n- run {number}\n- Horizon 18\n--> fucked\n\n".encode()
        )
    else:
        note = replace_machine_part(b"", render_note(record, status, evaluations()))
        if number % 3 == 0:
            note += f"- the puck sticks to the wall in game {number}\n\nA longer thought, in a paragraph.\n".encode()
        if number % 2 == 0 and state is not State.RUNNING:
            note = put_verdict(note, "--> bad: because it looks too far ahead [cause: agent.horizon=18]")
    (root / "notes" / f"{record.id}.md").write_bytes(note)
    if state is State.RUNNING:
        folder = root / "jobs" / record.id
        folder.mkdir(parents=True)
        (folder / "job.json").write_text(json.dumps(asdict(record)))
        rows = [{"event": "started", "attempt": 1}, {"event": "finished", "step": STEPS, "attempt": 1}]
        times = [{"time": record.submitted_at, **row} for row in rows]
        (folder / "events.jsonl").write_text("".join(json.dumps(row) + "\n" for row in times))


def timed(root: Path, command: list[str], repeats: int) -> tuple[list[float], float]:
    """Seconds of each run, the first of which is not counted; and the processor seconds of one."""
    environment = {**os.environ, "TDMPC_LAB_ROOT": str(root)}
    seconds = []
    before = processor_seconds()
    for _ in range(repeats + 1):
        if "--rollup" in command:
            (root / "notes" / "JOBS.md").unlink(missing_ok=True)
        start = time.perf_counter()
        subprocess.run(
            [sys.executable, "-m", "tdmpc_lab", *command],
            env=environment, cwd=root, stdout=subprocess.DEVNULL, check=True,
        )  # fmt: skip
        seconds.append(time.perf_counter() - start)
    return seconds[1:], (processor_seconds() - before) / (repeats + 1)


def guard_seconds(root: Path, repeats: int) -> list[float]:
    """Seconds that a submit spends on the jobs judged bad, in a process that is running already."""
    spec = root / "experiments" / "one.yaml"
    spec.write_text("env: {id: Pendulum-v1}\nagent: {horizon: 18}\n")
    item, project = load_spec(spec), Project(root)
    seconds = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        find_blamed(project, [item])
        seconds.append(time.perf_counter() - start)
    return seconds[1:]


def processor_seconds() -> float:
    """What the processes started here have used: tells more than the clock on a busy machine."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--notes", type=int, default=5000)
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for name in ("notes", "experiments", "jobs"):
            (root / name).mkdir()
        for number in range(args.notes):
            make_note(root, number, record_of(number))
        print(f"{args.notes:,} notes, {os.cpu_count()} cores; load {os.getloadavg()[0]:.1f}")
        for command in COMMANDS:
            seconds, processor = timed(root, command, args.repeats)
            print(
                f"tdmpc-lab {' '.join(command)}: {statistics.median(seconds):.2f} s "
                f"(median of {args.repeats}; {min(seconds):.2f} to {max(seconds):.2f}), {processor:.2f} s of processor"
            )
        seconds = guard_seconds(root, args.repeats)
        print(
            f"the guard of a submit: {statistics.median(seconds):.2f} s "
            f"(median of {args.repeats}; {min(seconds):.2f} to {max(seconds):.2f})"
        )


if __name__ == "__main__":
    main()
