"""What happens to a job when something goes wrong around it: no row is lost or doubled, and everything says so."""

from __future__ import annotations

import os
import random
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from fault_fixtures import MAY_DIFFER, run_process, same, start_process
from job_faults import LOCAL, attempt, make_job

from tdmpc_lab.app.queue.status import JobView, job_views
from tdmpc_lab.app.submit.restart import plan_resume
from tdmpc_lab.files import read_jsonl
from tdmpc_lab.jobs.events import read_events
from tdmpc_lab.jobs.paths import JobPaths, Project
from tdmpc_lab.jobs.state import State
from tdmpc_lab.training.checkpoints import CheckpointStore

pytestmark = pytest.mark.faults


@pytest.fixture
def job(project: Path, monkeypatch: pytest.MonkeyPatch) -> JobPaths:
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    return make_job(project, "train.env_timeout=1")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> JobPaths:
    root = tmp_path_factory.mktemp("undisturbed")
    (root / "experiments").mkdir()
    paths = make_job(root, "train.env_timeout=1")
    assert run_process(attempt, root) == 0
    return paths


def view(project: Path) -> JobView:
    (found,) = job_views(Project(project), [LOCAL])
    assert found.status is not None, found.problem
    return found


def rows(paths: JobPaths) -> list[dict]:
    return [{k: v for k, v in row.items() if k not in MAY_DIFFER} for row in read_jsonl(paths.metrics)[0]]


def agent(paths: JobPaths) -> dict:
    state = CheckpointStore(paths.checkpoints).load_latest()
    assert state is not None
    return state["agent"]


def goes_on_to_the_same_end(project: Path, paths: JobPaths, undisturbed: JobPaths) -> None:
    """A second attempt of the same job: as if nothing had happened."""
    assert run_process(attempt, project) == 0
    assert rows(paths) == rows(undisturbed)
    assert same(agent(paths), agent(undisturbed))
    assert view(project).status.state is State.COMPLETED
    assert "COMPLETED" in Project(project).note(LOCAL).read_text()


@pytest.mark.parametrize(
    ("fault", "number", "code", "words"),
    [
        ("disk_full", 40_000, 1, "the disk is full, or the quota used up: make room"),
        ("memory_out", 0, 1, "out of memory: ask for more"),
        ("not_a_number", 0, 1, "last good checkpoint: step_000000060.pt"),
        ("raises", 0, 1, "'job_faults:Faulty-v0', step 15 of the episode"),
        ("hangs", 0, 1, "'job_faults:Faulty-v0', step 15 of the episode"),
        ("hangs_deaf", 0, 1, "no answer for 1 s"),
    ],
)
def test_a_job_that_fails_says_why_and_can_go_on(
    project: Path, job: JobPaths, undisturbed: JobPaths, fault: str, number: int, code: int, words: str
) -> None:
    assert run_process(attempt, project, fault, number) == code
    found = view(project).status
    assert found.state is State.FAILED
    assert words in (found.cause or "")
    note = Project(project).note(LOCAL).read_text()
    assert "FAILED" in note
    assert words[:30] in note
    assert found.step is not None
    assert found.step >= 60
    plan = plan_resume(Project(project), LOCAL, [], None)  # what `tdmpc-lab resume` would submit
    assert plan.goes_on_from is not None
    goes_on_to_the_same_end(project, job, undisturbed)


def test_killed_in_the_middle_of_any_file_of_a_job(project: Path, job: JobPaths, undisturbed: JobPaths) -> None:
    """Events, heartbeats, note, metrics and checkpoints of five attempts that were killed."""
    draw = random.Random(3)
    for _ in range(5):
        assert run_process(attempt, project, "killed", draw.randint(5, 22)) == -signal.SIGKILL
        assert view(project).status.state is not State.COMPLETED
        read_events(job.events)
    goes_on_to_the_same_end(project, job, undisturbed)
    assert view(project).status.attempt == 6


def test_stopped_by_a_signal_it_saves_where_it_is(project: Path, job: JobPaths, undisturbed: JobPaths) -> None:
    assert run_process(attempt, project, "stopped_when_it_begins") == 0
    found = view(project).status
    assert (found.state, found.cause) == (State.CANCELLED, "stopped by SIGTERM")
    assert CheckpointStore(job.checkpoints).latest_name() == f"step_{found.step:09d}.pt"
    goes_on_to_the_same_end(project, job, undisturbed)


@pytest.mark.parametrize("fault", ["clock_backwards", "log_full"])
def test_what_a_job_takes_no_harm_from(project: Path, job: JobPaths, undisturbed: JobPaths, fault: str) -> None:
    assert run_process(attempt, project, fault) == 0
    assert rows(job) == rows(undisturbed)
    assert same(agent(job), agent(undisturbed))
    found = view(project).status
    assert found.state is State.COMPLETED
    assert found.elapsed_s is None or found.elapsed_s >= 0
    assert "COMPLETED" in Project(project).note(LOCAL).read_text()


@pytest.fixture
def open_project() -> Iterator[Path]:
    """A project that every user can look into."""
    root = Path(tempfile.mkdtemp(prefix="lab-"))
    root.chmod(0o755)
    (root / "experiments").mkdir()
    yield root
    root.chmod(0o755)
    for folder in root.rglob("*/"):
        folder.chmod(0o755)
    shutil.rmtree(root)


def test_a_folder_that_can_only_be_read_is_named_and_nothing_is_begun(open_project: Path) -> None:
    paths = make_job(open_project)
    for path in (open_project, *open_project.rglob("*")):
        path.chmod(0o555 if path.is_dir() else 0o444)
    (open_project / "log").touch() if os.getuid() == 0 else None
    before = sorted(str(path) for path in open_project.rglob("*"))
    assert run_process(attempt, open_project, "not_root") == 1
    assert sorted(str(path) for path in open_project.rglob("*")) == before
    (found,) = job_views(Project(open_project), [LOCAL])
    assert found.status is not None
    assert found.status.state is State.UNKNOWN
    paths.folder.chmod(0o755)
    for folder in (open_project, open_project / "jobs", paths.folder, paths.checkpoints):
        folder.chmod(0o755)
    assert run_process(attempt, open_project) == 0


def test_of_two_processes_of_one_job_the_later_has_it(project: Path, job: JobPaths, undisturbed: JobPaths) -> None:
    first = start_process(attempt, project, "slow")
    while not any(event["event"] == "warm_up" for event in read_events(job.events)):
        first.join(0.05)
        assert first.is_alive()
    assert run_process(attempt, project) == 0
    first.join(60)
    assert first.exitcode == 87  # another attempt has taken over
    assert rows(job) == rows(undisturbed)
    assert [event["attempt"] for event in read_events(job.events) if event["event"] == "finished"] == [2]
