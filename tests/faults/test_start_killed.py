"""A training that begins with another one's agent, killed at any moment: to the last bit as if nothing had happened."""

from __future__ import annotations

import random
import shutil
import signal
from pathlib import Path

import pytest
from fault_fixtures import MAY_DIFFER, run_process, same
from job_faults import LOCAL, SPEC, attempt

from memory_sink import MemorySink
from tdmpc_lab.app.agents.export import export_agent
from tdmpc_lab.app.submit.code import JobCode
from tdmpc_lab.app.submit.submit import plan, prepare
from tdmpc_lab.config.loader import load_spec
from tdmpc_lab.files import read_jsonl
from tdmpc_lab.jobs.events import read_events
from tdmpc_lab.jobs.paths import JobPaths, Project
from tdmpc_lab.training.build import Places, build_trainer
from tdmpc_lab.training.checkpoints import CheckpointStore, load_checkpoint

pytestmark = pytest.mark.faults
CODE = JobCode(commit=None, dirty=None, diff=None, snapshot=None)


@pytest.fixture(scope="module")
def submitted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose one job has not begun, and the agent that it begins with is no longer where it was."""
    root = tmp_path_factory.mktemp("submitted")
    (root / "experiments").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        Path("experiments/faulty.yaml").write_text(SPEC)
        spec = load_spec("experiments/faulty.yaml", ["train.steps=60", "eval=off"]).spec
        build_trainer(spec, sink=MemorySink(), places=Places(CheckpointStore(root / "parent"))).run()
        export_agent(Project(root), "parent", root / "piece", force=False, training=True)
        (ready,) = plan(Project(root), ["experiments/faulty.yaml"], ["train.start_from=piece", "train.seed=5"])
        prepare(Project(root), ready, "local", CODE, LOCAL, 1)
        shutil.rmtree(root / "piece")
    return root


@pytest.fixture
def job(submitted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> JobPaths:
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    shutil.copytree(submitted, tmp_path / "lab")
    return Project(tmp_path / "lab").job(LOCAL)


@pytest.fixture(scope="module")
def undisturbed(submitted: Path, tmp_path_factory: pytest.TempPathFactory) -> JobPaths:
    root = tmp_path_factory.mktemp("undisturbed") / "lab"
    shutil.copytree(submitted, root)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(Path(__file__).parent))
        assert run_process(attempt, root) == 0
    return Project(root).job(LOCAL)


def root_of(paths: JobPaths) -> Path:
    return paths.folder.parent.parent


def outcome(paths: JobPaths) -> tuple[list[dict], dict]:
    rows = [{k: v for k, v in row.items() if k not in MAY_DIFFER} for row in read_jsonl(paths.metrics)[0]]
    state = CheckpointStore(paths.checkpoints).load_latest()
    assert state is not None
    return rows, state["agent"]


def ends_the_same(paths: JobPaths, undisturbed: JobPaths) -> None:
    assert run_process(attempt, root_of(paths)) == 0
    (rows, agent), (expected_rows, expected) = outcome(paths), outcome(undisturbed)
    assert rows == expected_rows
    assert same(agent, expected)


def test_it_goes_on_learning_with_the_optimizers_of_the_other(undisturbed: JobPaths) -> None:
    events = read_events(undisturbed.events)
    assert [e["event"] for e in events][:3] == ["started", "ready", "start_from"]
    (told,) = (e for e in events if e["event"] == "start_from")
    assert (told["agent"], told["step"], told["optimizers"]) == ("piece", 60, True)
    assert "starts from piece at step 60: optimizers and running scale too; the replay is empty" in (
        (root_of(undisturbed) / "log").read_text()
    )
    before = load_checkpoint(undisturbed.start)["agent"]["learner"]["policy_optimizer"]["state"][0]["step"]
    rows, agent = outcome(undisturbed)
    updates = [row["updates"] for row in rows if "updates" in row][-1]
    assert updates > 0
    assert agent["learner"]["policy_optimizer"]["state"][0]["step"] == before + updates
    assert rows[0]["step"] <= 15  # a training of its own, from step 0


def test_killed_before_its_first_checkpoint_and_after(job: JobPaths, undisturbed: JobPaths) -> None:
    draw = random.Random(5)
    for number in (9, draw.randint(12, 22)):
        assert run_process(attempt, root_of(job), "killed", number) == -signal.SIGKILL
    ends_the_same(job, undisturbed)
    assert sum(e["event"] == "start_from" for e in read_events(job.events)) >= 1


def test_once_it_has_a_checkpoint_the_start_is_not_looked_at_again(job: JobPaths, undisturbed: JobPaths) -> None:
    assert run_process(attempt, root_of(job), "raises") == 1
    assert any(job.checkpoints.glob("step_*.pt"))
    shutil.rmtree(job.start.parent)
    ends_the_same(job, undisturbed)
