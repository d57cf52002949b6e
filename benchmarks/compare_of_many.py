"""How long `compare` takes with many long runs: makes a project with N of them and times the command.

    .venv/bin/python benchmarks/compare_of_many.py [--runs 100] [--points 2000] [--evaluations 200] [--repeats 5]

The runs are five seeds each of N/5 variants. A run's metrics have `--points` rows, `--evaluations` of them evaluations
of games against two opponents; the others are rows of the training as they are written today, losses and all.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from tdmpc_lab.config.diff import group_hash
from tdmpc_lab.config.loader import spec_from_dict
from tdmpc_lab.config.serialize import dump_yaml
from tdmpc_lab.jobs.record import JobRecord

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
STEPS = 500_000
SEEDS = 5
LOSSES = ("consistency", "reward", "value", "termination", "policy", "total", "entropy", "q_scale", "grad_norm")
COMMANDS = (["--csv"], ["--json"], ["--plot", "curves.png"])


def make_run(root: Path, number: int, points: int, evaluations: int) -> None:
    """One job folder that is over."""
    variant, seed = divmod(number, SEEDS)
    values = {"name": "many", "env": {"id": "hockey", "opponent": {"weak": 0.5, "strong": 0.5}}}
    values |= {"train": {"steps": STEPS, "seed": seed}, "agent": {"horizon": 3 + variant}}
    spec = spec_from_dict(values)
    point = {"agent.horizon": 3 + variant, "train.seed": seed}
    record = JobRecord(
        id=f"1900000_{number}",
        experiment="many",
        env_id="hockey",
        group=group_hash(spec),
        seed=seed,
        cluster="slurm",
        spec_file="experiments/many.yaml",
        submitted_at=(BEGIN + timedelta(minutes=number)).isoformat(),
        steps_total=STEPS,
        sweep={"index": number, "count": 0, "point": point},
    )
    folder = root / "jobs" / record.id
    folder.mkdir(parents=True)
    (folder / "resolved.yaml").write_text(dump_yaml(spec))
    (folder / "job.json").write_text(json.dumps(asdict(record)))
    events = [{"event": "started", "attempt": 1, "host": "node1"}, {"event": "finished", "step": STEPS, "attempt": 1}]
    times = [{"time": record.submitted_at, **event} for event in events]
    (folder / "events.jsonl").write_text("".join(json.dumps(row) + "\n" for row in times))
    every = points // evaluations
    lines = []
    chance = random.Random(number)
    for place in range(1, points + 1):
        row: dict[str, Any] = {"step": place * STEPS // points, "split": "eval" if place % every == 0 else "train"}
        row |= {"attempt": 1, "wall_s": round(place * 40.0, 3)}
        row |= evaluation(chance, place / points) if row["split"] == "eval" else training(chance)
        lines.append(json.dumps(row, separators=(",", ":")))
    (folder / "metrics.jsonl").write_text("\n".join(lines) + "\n")


def training(chance: random.Random) -> dict[str, float]:
    """A row of losses."""
    return {"steps_per_s": 12.5, **{f"loss/{name}": chance.random() for name in LOSSES}}


def evaluation(chance: random.Random, progress: float) -> dict[str, float]:
    """Forty games, half of them against each opponent."""
    row = {"return_mean": chance.gauss(0, 1), "return_std": 4.2, "return_min": -10.0, "return_max": 10.0}
    row |= {"length_mean": 180.0, "episodes": 40}
    won = {name: round(20 * min(1.0, progress * chance.uniform(0.5, 1.0))) / 20 for name in ("weak", "strong")}
    shares = {"": sum(won.values()) / 2, **{f"_{name}": share for name, share in won.items()}}
    for ending, share in shares.items():
        row |= {f"win{ending}": share, f"draw{ending}": 0.0, f"loss{ending}": 1 - share}
        row |= {f"win_low{ending}": share, f"win_high{ending}": share}
    return row


def timed(root: Path, command: list[str], repeats: int) -> tuple[list[float], float]:
    """Seconds of each run, the first of which is not counted; and the processor seconds of one."""
    environment = {**os.environ, "TDMPC_LAB_ROOT": str(root)}
    seconds = []
    before = processor_seconds()
    for _ in range(repeats + 1):
        start = time.perf_counter()
        subprocess.run(
            [sys.executable, "-m", "tdmpc_lab", "compare", "many", *command],
            env=environment, cwd=root, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True,
        )  # fmt: skip
        seconds.append(time.perf_counter() - start)
    return seconds[1:], (processor_seconds() - before) / (repeats + 1)


def processor_seconds() -> float:
    """What the processes started here have used: tells more than the clock on a busy machine."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=100)
    parser.add_argument("--points", type=int, default=2000)
    parser.add_argument("--evaluations", type=int, default=200)
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        (root / "experiments").mkdir()
        for number in range(args.runs):
            make_run(root, number, args.points, args.evaluations)
        size = sum(path.stat().st_size for path in root.glob("jobs/*/metrics.jsonl")) / 1e6
        print(
            f"{args.runs} runs, {args.points:,} rows each, {args.evaluations:,} of them evaluations, {size:.0f} MB; "
            f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}"
        )
        for command in COMMANDS:
            seconds, processor = timed(root, command, args.repeats)
            print(
                f"tdmpc-lab compare many {' '.join(command)}: {statistics.median(seconds):.2f} s "
                f"(median of {args.repeats}; {min(seconds):.2f} to {max(seconds):.2f}), {processor:.2f} s of processor"
            )


if __name__ == "__main__":
    main()
