"""The quickstart through the command line: stopped half way, and gone on with to its end."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gpu_check.process import ROOT, environment, python
from tdmpc_lab.files import read_jsonl, tail_jsonl

POLL_S = 0.2  # looking at a job's metrics
ASK_S = 3.0  # asking for its state, which costs a second of a processor
CALL_S = 60.0  # of one command that waits for nothing
CLEANING_S = 20.0  # for a job that a stage leaves behind
SPEC = Path("experiments") / "quickstart.yaml"
OVER = {"COMPLETED", "FAILED", "CANCELLED", "TIMEOUT"}
TINY = (
    *("train.steps=600", "train.seed_steps=250", "train.batch_size=8", "train.log_every=10", "eval.every=600"),
    *("eval.episodes=1", "planner.samples=16", "planner.elites=4", "planner.policy_trajectories=2"),
)


class JobError(Exception):
    """A job did not do what it should; the text says what it did."""


class Jobs:
    """Jobs of a project of the check's own, started, asked for and stopped by the `tdmpc-lab` command.

    Args:
        folder: of the check's run; `project` is made in it.
        end: the time, by `time.monotonic`, by which everything has to be over. Every method raises JobError then.
    """

    def __init__(self, folder: Path, log: Path, end: float) -> None:
        self.folder, self.log, self.end = folder, log, end
        self.root = folder / "project"
        (self.root / SPEC.parent).mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / SPEC, self.root / SPEC)

    def call(self, *words: str, limit_s: float = CALL_S) -> Any:
        """Standard output of a command as JSON. Raises JobError when it fails or takes too long."""
        limit_s = min(limit_s, self.end - time.monotonic())
        if limit_s <= 0:
            raise JobError(f"no time was left for `tdmpc-lab {words[0]}`")
        with self.log.open("a") as log:
            print("$ tdmpc-lab", *words, file=log, flush=True)
            try:
                done = subprocess.run(
                    python("-m", "tdmpc_lab", *words),
                    cwd=self.root,
                    env=environment(self.folder),
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=log,
                    text=True,
                    timeout=limit_s,
                    check=False,
                )
            except subprocess.TimeoutExpired as error:
                raise JobError(f"`tdmpc-lab {words[0]}` took longer than {limit_s:.0f} s") from error
            print(done.stdout, file=log, flush=True)
        if done.returncode != 0:
            raise JobError(f"`tdmpc-lab {words[0]}` ended with exit code {done.returncode}")
        return json.loads(done.stdout)

    def submit(self, *settings: str) -> str:
        """The id of a quickstart that was begun as a process of its own."""
        words = ("submit", str(SPEC), "--cluster", "local", "--no-snapshot", "--again", "--yes", "--json")
        return str(self.call(*words, *settings)["jobs"][0]["id"])

    def resume(self, job: str) -> str:
        """The id of the job that continues from where `job` was stopped."""
        words = ("resume", job, "--cluster", "local", "--no-snapshot", "--yes", "--json")
        return str(self.call(*words)["jobs"][0]["id"])

    def status(self, job: str) -> dict[str, Any]:
        """What `tdmpc-lab status` knows of it."""
        found: list[dict[str, Any]] = self.call("status", "--json")
        return next(one for one in found if one["id"] == job)

    def until_over(self, job: str, *, step: int | None = None) -> dict[str, Any]:
        """Its status once it is over, or has come as far as `step`."""
        asked = 0.0
        while time.monotonic() < self.end:
            far = step is not None and self.last_step(job) >= step
            if far or time.monotonic() - asked > ASK_S:
                asked = time.monotonic()
                found = self.status(job)
                if far or found["state"] in OVER:
                    return found
            time.sleep(POLL_S)
        raise JobError(f"job {job} was not as far in time, it is at step {self.last_step(job):,}")

    def last_step(self, job: str) -> int:
        """The step of its last row of metrics, 0 before the first."""
        rows = tail_jsonl(self.metrics(job))
        return max((int(row["step"]) for row in rows), default=0)

    def metrics(self, job: str) -> Path:
        """Its file of rows."""
        return self.root / "jobs" / job / "metrics.jsonl"

    def rows(self, job: str) -> list[dict[str, Any]]:
        """Its metrics."""
        return read_jsonl(self.metrics(job))[0]

    def last_lines(self, job: str, count: int) -> list[str]:
        """Of what the job printed, and of what its supervisor did."""
        found = []
        for name in ("supervisor.log", "log.out", "log.err"):
            with contextlib.suppress(OSError):
                text = (self.root / "jobs" / job / name).read_text(errors="replace")
                found += [f"{name}: {line}" for line in text.splitlines()[-count:]]
        return found

    @contextlib.contextmanager
    def ended(self, job: str) -> Iterator[None]:
        """However the block ends, the job does too: asked once to save, the second time at once."""
        try:
            yield
        finally:
            self.end = time.monotonic() + CLEANING_S
            with contextlib.suppress(JobError):
                while self.status(job)["state"] not in OVER:
                    self.call("cancel", job, "--yes", "--json")
                    time.sleep(2)
