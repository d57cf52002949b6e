"""Jobs that are submitted a second time: what is found, what is said, who is asked."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from app_fixtures import write_specs

from tdmpc_lab.app.agents import opponents
from tdmpc_lab.app.agents.opponents import freeze_opponents, frozen_opponents
from tdmpc_lab.app.checks.repeats import Repeats, find_repeats
from tdmpc_lab.app.submit.code import JobCode
from tdmpc_lab.app.submit.submit import JobPlan
from tdmpc_lab.cli import submit as commands
from tdmpc_lab.cli.main import main
from tdmpc_lab.config.diff import config_hash
from tdmpc_lab.config.loader import load_spec
from tdmpc_lab.config.serialize import dump_yaml
from tdmpc_lab.errors import UsageError
from tdmpc_lab.files import file_lock
from tdmpc_lab.jobs.events import EventLog
from tdmpc_lab.jobs.find import raw_records
from tdmpc_lab.jobs.ids import new_local_id
from tdmpc_lab.jobs.paths import JobPaths, Project
from tdmpc_lab.jobs.record import JobRecord, write_record
from tdmpc_lab.text import parse_time

QUICK = "experiments/quick.yaml"
OUTCOMES = {
    "COMPLETED": {"event": "finished", "step": 80},
    "FAILED": {"event": "failed", "cause": "the puck left", "step": 7},
    "CANCELLED": {"event": "stopped", "reason": "SIGTERM", "step": 7},
}


@pytest.fixture
def lab(project: Path) -> Project:
    write_specs(project)
    return Project(project)


def plan(lab: Project, *overrides: str) -> JobPlan:
    return JobPlan(load_spec(lab.root / QUICK, overrides), ())


def code(snapshot: str | None = "aaaa") -> Callable[[], JobCode]:
    return lambda: JobCode(commit=None, dirty=None, diff=None, snapshot=snapshot)


def add_job(lab: Project, number: int, state: str, *overrides: str, snapshot: str | None = "aaaa") -> JobPaths:
    """A job of `quick` that ended like this; UNKNOWN left nothing, RUNNING was started on another machine."""
    spec = load_spec(lab.root / QUICK, overrides).spec
    submitted = parse_time(f"2026-02-03T09:{number // 60:02}:{number % 60:02}+00:00")
    assert submitted is not None
    paths = lab.job(new_local_id(submitted))
    paths.folder.mkdir(parents=True)
    paths.resolved.write_text(dump_yaml(spec))
    paths.spec.write_text((lab.root / QUICK).read_text())
    record = JobRecord(
        id=paths.id,
        experiment=spec.name,
        group="0123456789",
        config_hash=config_hash(spec),
        seed=spec.train.seed,
        snapshot=snapshot,
        cluster="local",
        spec_file=QUICK,
        submitted_at=submitted.isoformat(),
        steps_total=80,
    )
    write_record(paths, record)
    if state in OUTCOMES:
        fields = dict(OUTCOMES[state])
        EventLog(paths.events).append(str(fields.pop("event")), **fields)
    elif state == "RUNNING":
        EventLog(paths.events).append("started", host="elsewhere", pid=1, attempt=1)
    return paths


def found(lab: Project, *plans: JobPlan) -> Repeats:
    return find_repeats(lab, plans, code())


@pytest.mark.parametrize(("state", "counts"), [("COMPLETED", True), ("RUNNING", True), ("FAILED", False),
                                               ("CANCELLED", False), ("UNKNOWN", False)])  # fmt: skip
def test_which_earlier_jobs_count(lab: Project, state: str, counts: bool) -> None:
    job = add_job(lab, 1, state, "train.seed=3")
    repeats = found(lab, plan(lab, "train.seed=3"))
    (line,) = repeats.refused if counts else repeats.said
    assert len(repeats.refused) + len(repeats.said) == 1
    assert line.startswith(f"quick, seed 3: job {job.id}, with the same code: {state}")


def test_what_is_the_same_and_what_is_not(lab: Project) -> None:
    job = add_job(lab, 1, "COMPLETED", snapshot="bbbb")
    for change in ("train.seed=2", "agent.horizon=2", "train.log_every=10", "train.device=auto"):
        assert found(lab, plan(lab, change)) == Repeats((), ()), change
    (line,) = found(lab, plan(lab, "about=other words", "slurm.partition=day", "why=x")).refused
    assert f"{job.id}, with other code: COMPLETED, step 80" in line
    (line,) = found(lab, plan(lab, "name=other")).said
    assert line.startswith(f"other, seed 1: job {job.id} (as quick), with other code")
    (line,) = find_repeats(lab, [plan(lab)], code(None)).refused
    assert f"{job.id}: COMPLETED" in line  # without a snapshot nothing is known of the code


def test_the_same_twice_in_one_call(lab: Project) -> None:
    repeats = found(lab, plan(lab), plan(lab, "train.seed=2"), plan(lab, "about=x"), plan(lab, "name=other"))
    assert repeats == Repeats(("quick, seed 1: given twice",), ("other, seed 1: the same config as quick",))


def test_damaged_and_older_records_do_not_stop_a_submit(lab: Project) -> None:
    job = add_job(lab, 1, "COMPLETED")
    job.record.write_text(job.record.read_text().replace('"seed"', '"sed"'))
    old = add_job(lab, 2, "COMPLETED")
    old.record.write_text(old.record.read_text().replace("config_hash", "something_else"))
    assert found(lab, plan(lab)) == Repeats((), ())


def test_thousands_of_jobs_are_looked_through_in_no_time(lab: Project) -> None:
    """5,000 jobs; the best of three, so that a busy machine does not decide."""
    text = add_job(lab, 0, "COMPLETED").record.read_text()
    for number in range(5000):
        folder = lab.jobs / f"{1_000_000 + number}"
        folder.mkdir()
        other = text.replace('"config_hash": "', f'"config_hash": "{number:04x}')
        (folder / "job.json").write_text(other)
    times = []
    for _ in range(3):
        start = time.perf_counter()
        assert len(found(lab, plan(lab)).refused) == 1
        times.append(time.perf_counter() - start)
    assert min(times) < 1, times


def entries(lab: Project) -> list[str]:
    return sorted(str(path.relative_to(lab.root)) for path in lab.root.rglob("*") if "__pycache__" not in path.parts)


def test_without_a_terminal_nothing_is_done(lab: Project, capsys: pytest.CaptureFixture[str]) -> None:
    job = add_job(lab, 1, "COMPLETED")
    before = entries(lab)
    assert main(["submit", QUICK, "--cluster", "local", "--json"]) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert "the same config and seed for a second time; nothing was done (--again: submit all the same)" in output.err
    assert f"  quick, seed 1: job {job.id}" in output.err
    assert entries(lab) == before


def test_a_dry_run_only_tells(lab: Project, capsys: pytest.CaptureFixture[str]) -> None:
    job = add_job(lab, 1, "COMPLETED")
    assert main(["submit", QUICK, "--cluster", "local", "--dry-run"]) == 0
    output = capsys.readouterr()
    assert "would run on local" in output.out
    assert job.id in output.err


SWEEP = "sweep.train.seed=[1, 2, 3]"


def test_of_a_sweep_the_missing_points_can_be_submitted(
    lab: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The first and the last one of three are there; the array is made of what is left."""
    first, last = (add_job(lab, number, "COMPLETED", f"train.seed={number}") for number in (1, 3))
    launched: list[list[int]] = []

    def launch(_project: Project, plans: list[JobPlan], *_: object) -> int:
        launched.append([plan.item.spec.train.seed for plan in plans])
        return 0

    monkeypatch.setattr(commands, "_launch", launch)
    assert main(["submit", QUICK, SWEEP, "--cluster", "local"]) == 2
    assert "--skip-existing: the other 1 job alone; --again" in capsys.readouterr().err
    assert main(["submit", QUICK, SWEEP, "--cluster", "local", "--skip-existing"]) == 0
    assert launched == [[2]]
    said = capsys.readouterr().err
    assert first.id in said and last.id in said
    words = ["submit", QUICK, "sweep.train.seed=[1, 2, 4]", "--skip-existing", "--dry-run", "--skip-preflight"]
    assert main([*words, "--cluster", "slurm"]) == 0
    out = capsys.readouterr().out
    assert "quick: 2 jobs would run" in out and "#SBATCH --array=0-1%2" in out
    assert "train.seed=2 (job 2 of 3)" in out and "train.seed=1 (" not in out
    assert main(["submit", QUICK, "--skip-existing", "--cluster", "local", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"jobs": []}
    assert main(["submit", QUICK, "--skip-existing", "--again", "--cluster", "local"]) == 2


def test_two_submits_at_the_same_moment_make_one_job(lab: Project) -> None:
    """Two processes that have both seen no such job; they are let go when both are about to record theirs."""
    source = Path(__file__).resolve().parents[3] / "src"
    command = [sys.executable, "-m", "tdmpc_lab", "submit", QUICK, "--cluster", "local", "--skip-preflight"]
    environ = {**os.environ, "PYTHONPATH": str(source)}
    with file_lock(lab.submit_lock):
        both = [
            subprocess.Popen(command, cwd=lab.root, env=environ, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL)
            for _ in range(2)
        ]
        end = time.monotonic() + 60
        while not all(_has_open(process, lab.submit_lock) for process in both):
            assert time.monotonic() < end, [process.poll() for process in both]
            time.sleep(0.05)
    said = [process.communicate(timeout=60)[1].decode() for process in both]
    jobs = [job_id for job_id, _ in raw_records(lab)]
    assert main(["cancel", *jobs]) == 0
    assert sorted(process.returncode for process in both) == [0, 2], said
    assert len(jobs) == 1
    assert f"the same config and seed was submitted a moment ago, as {jobs[0]}; nothing was done" in "".join(said)


def _has_open(process: subprocess.Popen[bytes], path: Path) -> bool:
    assert process.poll() is None, process.communicate()
    files = Path(f"/proc/{process.pid}/fd")
    with contextlib.suppress(FileNotFoundError):  # closed meanwhile
        return str(path) in [str(fd.readlink()) for fd in files.iterdir()]
    return False


def test_at_a_terminal_the_others_alone_can_be_chosen(lab: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    add_job(lab, 1, "COMPLETED", "train.seed=1")
    launched: list[int] = []
    monkeypatch.setattr(commands, "_launch", lambda _project, plans, *_: launched.append(len(plans)) or 0)
    there, here = pty.openpty()
    os.write(there, b"n\ny\n")
    with os.fdopen(here, closefd=False) as stdin, os.fdopen(here, "w") as stderr:
        monkeypatch.setattr("sys.stdin", stdin)
        monkeypatch.setattr("sys.stderr", stderr)
        assert main(["submit", QUICK, SWEEP, "--cluster", "local"]) == 0
    assert "submit the other 2 jobs alone? [y/N]" in read_all(there)
    assert launched == [2]


def test_a_resume_can_be_tried_dry(lab: Project, capsys: pytest.CaptureFixture[str]) -> None:
    job = add_job(lab, 1, "CANCELLED")
    job.checkpoints.mkdir()
    (job.checkpoints / "step_000000050.pt").write_bytes(b"")
    before = {path: path.stat().st_mtime_ns for path in lab.root.rglob("*") if "__pycache__" not in path.parts}
    for cluster in ("local", "slurm"):
        words = ["resume", job.id, "--steps", "90", "--cluster", cluster, "--dry-run", "--skip-preflight"]
        assert main(words) == 0
        out = capsys.readouterr().out
        assert (
            f"quick: would run on {cluster}; nothing was written\n  continues from {job.id} at step 50 of 90\n" in out
        )
        assert "  steps: 90\n" in out
        assert ("#SBATCH" in out) == (cluster == "slurm")
    assert main([*words, "--json"]) == 0
    (report,) = json.loads(capsys.readouterr().out)["jobs"]
    assert report["goes_on_from"] == {"job": job.id, "step": 50}
    after = {path: path.stat().st_mtime_ns for path in lab.root.rglob("*") if "__pycache__" not in path.parts}
    assert after == before


def read_all(terminal: int) -> str:
    """What was printed at the other end, which is closed."""
    shown = b""
    while True:
        try:
            shown += os.read(terminal, 10_000)
        except OSError:  # there is no more
            os.close(terminal)
            return shown.decode()


@pytest.mark.parametrize(("typed", "code"), [("y\n", 0), ("Yes\n", 0), ("\n", 2), ("n\n", 2), ("what?\n", 2)])
def test_at_a_terminal_it_asks(lab: Project, typed: str, code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    add_job(lab, 1, "COMPLETED")
    monkeypatch.setattr(commands, "_launch", lambda *_: 0)
    there, here = pty.openpty()
    os.write(there, typed.encode())
    with os.fdopen(here, closefd=False) as stdin, os.fdopen(here, "w") as stderr:
        monkeypatch.setattr("sys.stdin", stdin)
        monkeypatch.setattr("sys.stderr", stderr)
        assert main(["submit", QUICK, "--cluster", "local"]) == code
    shown = read_all(there)
    assert "submit all the same? [y/N]" in shown
    assert ("nothing was done" in shown) == (code == 2)


@pytest.mark.parametrize("words", [["--cluster", "local", "--again"], ["--cluster", "debug"]])
def test_nobody_is_asked_who_has_said_so(lab: Project, words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    add_job(lab, 1, "COMPLETED")
    launched = []
    monkeypatch.setattr(commands, "_launch", lambda _project, plans, *_: launched.append(len(plans)) or 0)
    assert main(["submit", QUICK, *words]) == 0
    assert launched == [1]


def test_a_repeated_job_plays_against_the_same_agents(lab: Project) -> None:
    """The copies of the old job are taken: the job that they came from may have learned since, or be gone."""
    text = "env: {id: hockey, opponent: {weak: 0.5, '1971498': 0.5}}\n"
    (lab.root / "experiments" / "game.yaml").write_text(text)
    spec = load_spec(lab.root / "experiments" / "game.yaml").spec
    old, new = lab.job("local-20260203-090000-001"), lab.job("local-20260203-090000-002")
    old.opponents.mkdir(parents=True)
    new.folder.mkdir()
    with pytest.raises(UsageError, match="no job 1971498"):
        freeze_opponents(lab, spec, new)
    opponents._frozen(old, "1971498").write_bytes(b"an agent of old")
    freeze_opponents(lab, spec, new, old)
    (copy,) = new.opponents.iterdir()
    assert copy.read_bytes() == b"an agent of old"
    assert frozen_opponents(new)("1971498") == copy


def test_a_rerun_can_be_tried_dry(lab: Project, capsys: pytest.CaptureFixture[str]) -> None:
    job = add_job(lab, 1, "COMPLETED", snapshot=None)
    before = entries(lab)
    assert main(["rerun", job.id, "train.seed=4", "--cluster", "slurm", "--dry-run"]) == 0
    output = capsys.readouterr()
    assert "would run on slurm; nothing was written" in output.out
    assert "seed: 4" in output.out
    assert "#SBATCH" in output.out
    assert f"no code was kept for {job.id}" in output.err
    assert entries(lab) == before
