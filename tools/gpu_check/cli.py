"""The command line of gpu-check."""

from __future__ import annotations

import argparse
import json
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from types import FrameType
from typing import Any

from gpu_check.process import Ended, python, run
from gpu_check.report import MARKDOWN, Report
from gpu_check.stages import Work, attempt, revision, stages

OK, FAILED, NO_GPU, INTERRUPTED = 0, 1, 3, 130
WHOLE_S = 390.0  # of all stages together: with what comes before and after them it stays below 8 minutes
FACTS_S = 60.0


def main(argv: Sequence[str] | None = None) -> int:
    """Run the check; returns the exit code."""
    args = _parser().parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="gpu-check-") as folder:
        ended, machine = _ask(Path(folder))
    if args.device != "cpu" and not (machine or {}).get("devices"):
        _say_what_is_missing(ended, machine)
        return NO_GPU
    if machine is None:
        print("gpu-check: torch can't be asked:", *ended.lines, sep="\n  ", file=sys.stderr)
        return FAILED
    args.out.mkdir(parents=True, exist_ok=True)
    run_folder = args.out / datetime.now().strftime("run-%Y%m%d-%H%M%S")
    run_folder.mkdir(exist_ok=True)
    work = Work(run_folder, args.device, tiny=args.device == "cpu")
    return check(work, Report(args.out, args.device, machine | {"code": revision()}, []), args.limit)


def check(work: Work, report: Report, limit_s: float) -> int:
    """All stages, one after the other, the report written before and after each."""
    planned = stages()
    report.stages = [stage for stage, _ in planned]
    signal.signal(signal.SIGTERM, _interrupt)
    end = time.monotonic() + limit_s
    patience = max(1.0, limit_s / WHOLE_S)  # with more time for the whole, each stage may take longer too
    for stage, trying in planned:
        stage.limit_s = min(patience * stage.limit_s, end - time.monotonic())
        if stage.limit_s <= 0:
            stage.state, stage.said = "left out", f"the whole check has {limit_s:.0f} s, and they are over"
            continue
        stage.state = "running"
        report.save()
        print(f"{stage.name}: {stage.what} ...", flush=True)
        try:
            attempt(work, stage, trying)
        except KeyboardInterrupt:
            stage.state, stage.said = "failed", "the check was interrupted here"
            report.finish()
            print(f"interrupted; what there is: {report.folder / MARKDOWN}", file=sys.stderr)
            return INTERRUPTED
        print(f"{stage.name}: {stage.state} after {stage.seconds} s: {stage.said}", flush=True)
        report.save()
    report.finish()
    print(f"{report.verdict}: {report.folder / MARKDOWN}")
    return FAILED if report.bad else OK


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="gpu-check",
        description="Try everything of ours that needs a GPU on the one that is here, in less than 8 minutes, and "
        "write a report as it goes.",
        epilog="exit codes: 0 all good, 1 a stage failed, 2 wrong command line, 3 no GPU here",
    )
    parser.add_argument("--out", type=_folder, default=Path("gpu-check").resolve(), metavar="FOLDER",
                        help="where report.md and report.json go (default: gpu-check)")  # fmt: skip
    parser.add_argument("--limit", type=float, default=WHOLE_S, metavar="S", help=argparse.SUPPRESS)
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda", help=argparse.SUPPRESS)
    return parser


def _folder(text: str) -> Path:
    return Path(text).expanduser().resolve()


def _ask(folder: Path) -> tuple[Ended, dict[str, Any] | None]:
    """What torch sees, found out in a process of its own; None where that was no success."""
    answer = folder / "facts.json"
    ended = run(python("-m", "gpu_check.facts", str(answer)), folder, folder / "facts.log", FACTS_S)
    return ended, json.loads(answer.read_text()) if ended.ok else None


def _say_what_is_missing(ended: Ended, machine: dict[str, Any] | None) -> None:
    if machine is None:
        why = ["torch can't be asked in this Python:", *(f"  {line}" for line in ended.lines[-5:])]
    elif machine["cuda"] is None:
        why = [f"torch {machine['torch']} was built without CUDA. On a machine with a GPU, install a build with it, or",
               "name a Python that has one and the project's packages: make gpu-check GPU_PYTHON=/path/to/python",
               ]  # fmt: skip
    else:
        why = [f"torch {machine['torch']}, built for CUDA {machine['cuda']}, sees no device: is there a GPU, does",
               "`nvidia-smi` list it, is it hidden by CUDA_VISIBLE_DEVICES, is the driver new enough?",
               ]  # fmt: skip
    print("gpu-check: no GPU here, so nothing was run.", *why, "It would have run:", sep="\n", file=sys.stderr)
    for stage, _ in stages():
        print(f"  {stage.name}: {stage.what} (at most {stage.limit_s:.0f} s)", file=sys.stderr)


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    """SIGTERM does what Ctrl-C does: ends what runs, and leaves a whole report."""
    raise KeyboardInterrupt
