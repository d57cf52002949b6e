"""What logging costs the training, with an MLflow server that is killed half-way.

    .venv/bin/python benchmarks/logging_cost.py [--steps 1500] [--repeats 3]

A real job (the quickstart's agent, here, as `--cluster debug` runs it) trains against a real MLflow server on
127.0.0.1, which gets SIGKILL at half of the steps. Measured on the training thread: the seconds inside the logging call
(row to file, progress, and at evaluations the note) as a share of the time between the rows, before and after the
kill; and the milliseconds per step beside those of the same job without any MLflow, which tell what the mirror's thread
takes from the training's processor.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

from tdmpc_lab.app.run import worker
from tdmpc_lab.cli.main import main as tdmpc_lab
from tdmpc_lab.training.loop import Trainer

SPEC = Path(__file__).resolve().parent.parent / "experiments" / "quickstart.yaml"
LOG_EVERY = 10  # steps; the quickstart's own 100 would make the share a tenth
RANDOM_STEPS = 200
FEWEST_STEPS = 600
START_S = 120


@dataclass
class Watched:
    """What one training did, by the clock of its own thread."""

    calls: list[tuple[int, float, float]] = field(default_factory=list)
    """Step, seconds at the begin of the logging call, seconds inside it."""

    def log(self, trainer: Trainer, split: str, values: Any, original: Callable[..., None]) -> None:
        """In the place of the trainer's own logging call."""
        began = time.perf_counter()
        original(trainer, split, values)
        self.calls.append((trainer.step, began, time.perf_counter() - began))

    def between(self, first: int, last: int) -> tuple[float, float]:
        """Share of the time inside the call, and milliseconds per step, of the steps from first to last."""
        calls = [call for call in self.calls if first <= call[0] <= last]
        wall = calls[-1][1] - calls[0][1]
        return sum(call[2] for call in calls[:-1]) / wall, 1000 * wall / (calls[-1][0] - calls[0][0])


@contextlib.contextmanager
def server(folder: Path) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """An MLflow server of its own process group; its address and its process."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{folder}/server.db"]
    environ = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    with (folder / "server.log").open("wb") as log:
        process = subprocess.Popen(command, env=environ, stdout=log, stderr=log, start_new_session=True)
    try:
        wait_for_answer(f"http://127.0.0.1:{port}/health")
        yield f"http://127.0.0.1:{port}", process
    finally:
        kill(process)


def wait_for_answer(url: str) -> None:
    """Until the server says that it is well."""
    end = time.monotonic() + START_S
    while True:
        with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=2):
            return
        assert time.monotonic() < end, f"{url} does not answer"
        time.sleep(0.2)


def kill(process: subprocess.Popen[bytes]) -> None:
    """SIGKILL to the server and its workers."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait(10)


def train(root: Path, steps: int, seed: int) -> Watched:
    """One job in this process; what it logged."""
    watched, original = Watched(), Trainer._log
    words = [f"train.steps={steps}", f"train.seed={seed}", f"train.seed_steps={RANDOM_STEPS}"]
    words += [f"train.log_every={LOG_EVERY}", f"eval.every={steps // 3}", "eval.episodes=1"]
    with (
        contextlib.chdir(root),
        (root / "talk.txt").open("a") as talk,
        contextlib.redirect_stdout(talk),
        contextlib.redirect_stderr(talk),
        mock.patch.object(Trainer, "_log", lambda trainer, *args: watched.log(trainer, *args, original)),
        mock.patch.object(worker, "CLOSE_S", 1.0),  # the end of the job is not measured
    ):
        code = tdmpc_lab(["submit", "experiments/quickstart.yaml", *words, "--cluster", "debug", "--no-snapshot"])
    assert code == 0, (root / "talk.txt").read_text()
    return watched


def with_server(root: Path, steps: int, seed: int) -> Watched:
    """The job while a server follows that is killed half-way."""
    folder = root / f"server{seed}"
    folder.mkdir()
    with server(folder) as (uri, process), mock.patch.dict(os.environ, MLFLOW_TRACKING_URI=uri):
        over = threading.Event()
        killer = threading.Thread(target=kill_at, args=(root, steps // 2, process, over))
        killer.start()
        try:
            return train(root, steps, seed)
        finally:
            over.set()
            killer.join()


def kill_at(root: Path, step: int, process: subprocess.Popen[bytes], over: threading.Event) -> None:
    """End the server when the newest job has come to this step."""
    known = set((root / "jobs").glob("local-*/metrics.jsonl"))
    while not over.wait(0.05):
        for metrics in set((root / "jobs").glob("local-*/metrics.jsonl")) - known:
            if f'"step":{step},' in metrics.read_text():
                kill(process)
                return


def main() -> None:
    """Train with and without a server in turn, print medians and ranges."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    if args.steps < FEWEST_STEPS or args.repeats < 1:
        parser.error(f"--steps is at least {FEWEST_STEPS}, --repeats at least 1")
    half, learning = args.steps // 2, RANDOM_STEPS + 50  # the first updates compile and import
    shares: dict[str, list[float]] = {"server up": [], "server killed": []}
    paces: dict[str, list[float]] = {"server up": [], "server killed": [], "without MLflow": []}
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        (root / "experiments").mkdir()
        shutil.copyfile(SPEC, root / "experiments" / SPEC.name)
        for seed in range(args.repeats):
            with mock.patch.object(worker._Run, "_start_mirror", lambda *_: None):
                paces["without MLflow"].append(train(root, args.steps, seed).between(learning, args.steps)[1])
            watched = with_server(root, args.steps, seed)
            for name, part in (("server up", (learning, half)), ("server killed", (half, args.steps))):
                share, pace = watched.between(*part)
                shares[name].append(share)
                paces[name].append(pace)
    for name, found in shares.items():
        print(f"inside the logging call, {name}: {spread([100 * share for share in found], '.3f')} % of the step time")
    for name, found in paces.items():
        print(f"a step, {name}: {spread(found, '.1f')} ms")


def spread(found: list[float], form: str) -> str:
    """The median, and the range."""
    return f"{statistics.median(found):{form}} ({min(found):{form}} to {max(found):{form}})"


if __name__ == "__main__":
    main()
