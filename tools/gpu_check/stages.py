"""The stages of the check, one function each: it tries one thing, and fills in what came of it."""

from __future__ import annotations

import json
import math
import subprocess
import time
import traceback
import xml.etree.ElementTree as ET
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpu_check.job import TINY, JobError, Jobs
from gpu_check.process import ROOT, Ended, python, run
from gpu_check.report import Stage

SPEEDS = [(name, horizon, mode) for name, horizon in (("reference", 9), ("reference", 3), ("hockey_small", 3))
          for mode in ("eager", "captured")]  # fmt: skip
TESTS_ON_CPU = ("tests/agent/test_static_call.py", "-k", "cpu")  # the same tests where the others would be skipped
LEARNED = -700.0  # random play gives about −1200, the quickstart ends between −130 and −250


@dataclass
class Work:
    """What all stages of one check share."""

    folder: Path
    """Of this run: logs, caches, the quickstart's project."""
    device: str
    tiny: bool
    """Sizes for a test without a GPU."""
    job: str | None = None
    """The quickstart that was stopped half way."""
    stopped_at: int | None = None

    def program(self, stage: Stage, *words: str) -> Ended:
        """Run a program of this package or a module by its name, with the stage's limit and log."""
        log = self.folder / f"{stage.name.replace(' ', '-')}.log"
        stage.log = str(log.relative_to(self.folder.parent))
        return run(python("-m", *words), self.folder, log, stage.limit_s)


Try = Callable[[Work, Stage], None]


def stages() -> list[tuple[Stage, Try]]:
    """All of them, in their order. The limits are for the stage alone; the whole has one of its own."""
    found: list[tuple[Stage, Try]] = [
        (Stage("tests", "the tests that need CUDA (pytest -m cuda)", 120), try_tests),
        (Stage("captures", "plans and updates captured in CUDA graphs against those call by call", 90), try_captures),
    ]
    for name, horizon, mode in SPEEDS:
        what = f"plan and update, {name} agent, horizon {horizon}, {mode}"
        found.append((Stage(f"{name} {horizon} {mode}", what, 60), _speed(name, horizon, mode)))
    found += [
        (Stage("quickstart", "experiments/quickstart.yaml on the device, stopped half way", 150), try_quickstart),
        (Stage("resume", "the same, from where it was stopped to its end", 150), try_resume),
    ]
    return found


def attempt(work: Work, stage: Stage, trying: Try) -> None:
    """One stage, from its begin to its end; whatever goes wrong in it is written down and goes no further."""
    began = time.monotonic()
    try:
        trying(work, stage)
    except JobError as error:
        stage.state, stage.said = "failed", str(error)
    except Exception as error:  # noqa: BLE001 - a mistake of this program costs its own stage, not the ones after it
        stage.state, stage.said = "failed", f"{type(error).__name__}: {error}"
        stage.last_lines = traceback.format_exc().splitlines()
    stage.seconds = round(time.monotonic() - began, 1)


def _judge(stage: Stage, ended: Ended, said: str) -> None:
    """The stage's state by how its program ended."""
    if ended.ok:
        stage.state, stage.said = "ok", said
        return
    stage.state = "timed out" if ended.code is None else "failed"
    stage.said = "; ".join(filter(None, [said, ended.why(stage.limit_s)]))
    stage.last_lines = ended.lines


def try_tests(work: Work, stage: Stage) -> None:
    """As `make test` runs them; where that fails, once more with warnings that are no errors, which hide less."""
    began = time.monotonic()
    results = work.folder / "tests.xml"
    which = TESTS_ON_CPU if work.tiny else ("tests", "-m", "cuda")
    words = (
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "--continue-on-collection-errors",
        *which,
        f"--junit-xml={results}",
    )
    ended = work.program(stage, *words)
    said, passed = _counted(results)
    if ended.ok and not passed:
        ended = Ended(1, ended.lines)
    _judge(stage, ended, said)
    if stage.state == "failed":
        stage.limit_s -= time.monotonic() - began
        results.unlink(missing_ok=True)
        again = work.program(stage, *words, "-W", "default")
        stage.said += f"; again, warnings not being errors: {_counted(results)[0] or again.why(stage.limit_s)}"


def _counted(results: Path) -> tuple[str, int]:
    """What pytest's own file says, in words, and how many tests passed."""
    if not results.is_file():
        return "", 0
    suites = list(ET.parse(results).getroot().iter("testsuite"))
    tests, failed, errors, skipped = (
        sum(int(suite.get(name, "0")) for suite in suites) for name in ("tests", "failures", "errors", "skipped")
    )
    bad = [
        case.get("name") for case in ET.parse(results).getroot().iter("testcase") if case.find("failure") is not None
    ]
    passed = tests - failed - errors - skipped
    text = f"{passed} passed, {failed} failed, {errors} errors, {skipped} skipped"
    return text + (f" ({', '.join(map(str, bad))})" if bad else ""), passed


def try_captures(work: Work, stage: Stage) -> None:
    """What a job with `agent.cuda_graphs: auto` would ask first; a good answer is kept for the quickstart."""
    answer = work.folder / "captures.json"
    ended = work.program(stage, "gpu_check.captures", work.device, str(answer))
    _judge(stage, ended, str(_read(answer).get("said", "")))


def _speed(name: str, horizon: int, mode: str) -> Try:
    def trying(work: Work, stage: Stage) -> None:
        answer = work.folder / f"speed-{name}-{horizon}-{mode}.json"
        size = "tiny" if work.tiny else "full"
        ended = work.program(stage, "gpu_check.speed", work.device, name, str(horizon), mode, size, str(answer))
        row = _read(answer)
        _judge(stage, ended, f"plan {row['plan_ms']:.1f} ms, update {row['update_ms']:.1f} ms" if row else "")
        stage.rows = [row] if row else []

    return trying


def try_quickstart(work: Work, stage: Stage) -> None:
    """Begin it, wait until half of its steps are made, stop it as a user would."""
    stage.log = f"{work.folder.name}/quickstart.log"
    jobs = Jobs(work.folder, work.folder / "quickstart.log", time.monotonic() + stage.limit_s)
    job = jobs.submit(f"train.device={work.device}", *(TINY if work.tiny else ()))
    try:
        with jobs.ended(job):
            steps = int(jobs.status(job)["steps"])
            found = jobs.until_over(job, step=steps // 2)
            if found["state"] in ("RUNNING", "PENDING"):
                jobs.call("cancel", job, "--yes", "--json")
                found = jobs.until_over(job)
            if found["state"] != "CANCELLED":
                raise JobError(f"job {job}: {found['state']}: {found['cause'] or 'over before it could be stopped'}")
    except JobError:
        stage.last_lines = jobs.last_lines(job, 10)
        raise
    work.job, work.stopped_at = job, int(found["step"])
    stage.state, stage.said = "ok", f"stopped at step {work.stopped_at:,} of {steps:,}"


def try_resume(work: Work, stage: Stage) -> None:
    """Continue from there: the new job begins where the old one ended, and ends where that would have."""
    if work.job is None or work.stopped_at is None:
        stage.state, stage.said = "left out", "there is no stopped quickstart to continue with"
        return
    stage.log = f"{work.folder.name}/resume.log"
    jobs = Jobs(work.folder, work.folder / "resume.log", time.monotonic() + stage.limit_s)
    job = jobs.resume(work.job)
    try:
        with jobs.ended(job):
            found = jobs.until_over(job)
            if found["state"] != "COMPLETED":
                raise JobError(f"job {job}: {found['state']}: {found['cause']}")
        steps = [row["step"] for row in jobs.rows(job) if "updates" in row]
        # rows of the stopped job come first; none of them twice, and none left out
        if steps != sorted(set(steps)) or steps[-1] != found["steps"]:
            raise JobError(f"job {job} has rows of steps {steps[:3]} … {steps[-3:]}, not one after the other")
        if not math.isfinite(found["return"]):
            raise JobError(f"job {job} ended with a return of {found['return']}")
        if not work.tiny and found["return"] < LEARNED:
            raise JobError(f"job {job} learned nothing: its return is {found['return']:.0f}")
    except JobError:
        stage.last_lines = jobs.last_lines(job, 10)
        raise
    stage.state, stage.said = "ok", f"from step {work.stopped_at:,} to {found['steps']:,}, return {found['return']:.1f}"


def _read(path: Path) -> dict[str, Any]:
    """A program's answer; empty where it gave none."""
    return json.loads(path.read_text()) if path.is_file() else {}


def revision() -> str:
    """The commit of this checkout, where git knows it."""
    try:
        command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"
    return done.stdout.strip() or "unknown"
