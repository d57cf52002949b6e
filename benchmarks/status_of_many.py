"""How long `tdmpc-lab status` takes with many jobs: makes a project with N recorded jobs and times the command.

    .venv/bin/python benchmarks/status_of_many.py [--jobs 5000] [--repeats 5]

The jobs are as real ones leave them: a record of 2 KB, 30 events, 600 rows of metrics. Nine in ten finished, the
others failed, were cancelled or left no outcome; half are SLURM jobs, which no scheduler knows any more.
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

from tdmpc_lab.jobs.record import JobRecord

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
STEPS = 500_000


def make_job(root: Path, number: int) -> None:
    """One job folder."""
    submitted = BEGIN + timedelta(minutes=10 * number)
    slurm = number % 2 == 0
    job_id = str(1_900_000 + number) if slurm else f"local-{submitted:%Y%m%d-%H%M%S}-000"
    folder = root / "jobs" / job_id
    folder.mkdir(parents=True)
    record = JobRecord(
        id=job_id,
        experiment=f"backprop_{number % 40}",
        env_id="hockey",
        about="backprop without reward shaping, seed by seed",
        why="does backprop alone break the reward stagnation?",
        group=f"{number % 400:010x}",
        seed=number % 5,
        overrides=("agent.horizon=9", "reward.backprop.bonus=10", f"train.seed={number % 5}"),
        compare_to="baseline",
        diff=("agent.horizon 18 → 9", "reward.backprop off → on"),
        git_commit="9af4dbf0" * 5,
        git_dirty=False,
        cluster="slurm" if slurm else "local",
        resources={"partition": "day", "gpus": "2080ti:1", "cpus": 4, "memory": "16G"} if slurm else {},
        command=("tdmpc-lab", "submit", "experiments/backprop.yaml"),
        spec_file="experiments/backprop.yaml",
        submitted_at=submitted.isoformat(timespec="milliseconds"),
        steps_total=STEPS,
    )
    (folder / "job.json").write_text(json.dumps(asdict(record), indent=2))
    (folder / "events.jsonl").write_text("\n".join(events(number, job_id, submitted)) + "\n")
    (folder / "metrics.jsonl").write_text(METRICS)


def events(number: int, job_id: str, submitted: datetime) -> list[str]:
    """A start, a checkpoint every 25,000 steps, an end (but for one job in fifty)."""
    rows: list[dict[str, object]] = [
        {"event": "started", "host": "tcml-node37", "pid": 4242, "attempt": 1, "job": job_id, "python": "3.11.7"},
        {"event": "ready", "device": "cuda", "gpu": "NVIDIA GeForce RTX 2080 Ti", "threads": 4, "torch": "2.13.0"},
        {"event": "tracking", "run_id": f"{number:032x}", "experiment_id": "1", "store": "sqlite:///mlruns/mlflow.db"},
        *(
            {"event": "checkpoint", "step": step, "file": f"step_{step:09d}.pt"}
            for step in range(25_000, STEPS, 25_000)
        ),
    ]
    if number % 50 == 1:
        rows.append({"event": "failed", "cause": "NaN in loss/reward", "error": "NonFiniteError", "traceback": "…"})
    elif number % 50 == 2:
        rows.append({"event": "stopped", "reason": "cancelled by anna", "step": 300_000})
    elif number % 50 != 3:
        rows.append({"event": "finished", "step": STEPS, "attempt": 1})
    times = (submitted + timedelta(minutes=9 * index) for index in range(len(rows)))
    return [dump({"time": t.isoformat(timespec="milliseconds"), **r}) for t, r in zip(times, rows, strict=True)]


def metrics() -> str:
    """Episodes, losses and evaluations, as the trainer writes them."""
    rows: list[dict[str, object]] = []
    for index in range(1, 601):
        row: dict[str, object] = {"step": index * STEPS // 600, "split": "train", "attempt": 1, "wall_s": 61.5 * index}
        if index % 3 == 0:
            names = ("total", "consistency", "reward", "value", "termination", "policy", "grad", "scale")
            rows.append({**row, **{f"loss/{n}": 0.123456789 for n in names}, "updates": 1000, "steps_per_s": 8.1})
        elif index % 60 == 1:
            rows.append({**row, "split": "eval", "return_mean": -1.5, "return_std": 3.0, "episodes": 20})
        else:
            rows.append({**row, "env": 0, "return": -4.25, "episode_length": 250})
    rows.append({"step": STEPS, "split": "eval", "attempt": 1, "return_mean": 7.5, "return_std": 3.0, "episodes": 20})
    return "".join(dump(row) + "\n" for row in rows)


def dump(row: dict[str, object]) -> str:
    """A row as the job writes it."""
    return json.dumps(row, separators=(",", ":"), ensure_ascii=False)


METRICS = metrics()


def timed(root: Path, words: list[str], repeats: int) -> None:
    """Seconds that the command takes, from the start of Python to its end, and how many of them a processor's."""
    times, before = [], resource.getrusage(resource.RUSAGE_CHILDREN)
    for _ in range(repeats):
        began = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-m", "tdmpc_lab", *words], cwd=root, env=os.environ, capture_output=True, check=False
        )
        times.append(time.perf_counter() - began)
        assert done.returncode == 0, done.stderr.decode()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    busy = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    print(
        f"tdmpc-lab {' '.join(words)}: median {statistics.median(times):.2f} s, best {min(times):.2f} s, "
        f"{busy / repeats:.2f} s of a processor"
    )


def main() -> None:
    """Make the project, time both forms, print the medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=5000)
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        (root / "experiments").mkdir()
        for number in range(args.jobs):
            make_job(root, number)
        for words in (["--version"], ["status"], ["status", "--json"]):
            timed(root, words, args.repeats)


if __name__ == "__main__":
    main()
