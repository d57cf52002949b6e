"""`train.start_from`: which agent a training begins with, what is kept of it, and what can't be begun with."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from app_fixtures import QUICK
from torch import Tensor

from memory_sink import MemorySink
from tdmpc_lab.agent.world_model import WorldModel
from tdmpc_lab.app.submit.code import JobCode
from tdmpc_lab.app.submit.restart import plan_rerun, plan_resume
from tdmpc_lab.app.submit.submit import JobPlan, plan, prepare
from tdmpc_lab.cli import submit as commands
from tdmpc_lab.cli.main import main
from tdmpc_lab.config.diff import config_hash, group_hash
from tdmpc_lab.config.loader import load_spec
from tdmpc_lab.config.rules import NETWORK_KEYS
from tdmpc_lab.config.schema import AgentConfig
from tdmpc_lab.config.serialize import dump_yaml
from tdmpc_lab.errors import CheckpointError
from tdmpc_lab.files import write_atomic
from tdmpc_lab.jobs.events import EventLog
from tdmpc_lab.jobs.find import job_ids
from tdmpc_lab.jobs.paths import JobPaths, Project
from tdmpc_lab.jobs.record import JobRecord, prepare_job, read_record
from tdmpc_lab.tracking.run import run_info
from tdmpc_lab.training.build import Places, build_agent, build_trainer
from tdmpc_lab.training.checkpoints import CheckpointStore, load_checkpoint
from tdmpc_lab.training.load import load_start

SPEC = "experiments/quick.yaml"
TASK = "1971498_3"  # two checkpoints: at step 40 and, its newest, at step 80
BARE = "local-20260203-091422-123"  # no checkpoint
CODE = JobCode(commit=None, dirty=None, diff=None, snapshot=None)


def record(job_id: str) -> JobRecord:
    spec = load_spec(SPEC).spec
    return JobRecord(
        id=job_id,
        experiment="quick",
        group=group_hash(spec),
        config_hash=config_hash(spec),
        seed=1,
        cluster="local",
        spec_file=SPEC,
        submitted_at="2026-02-03T09:14:22+01:00",
        steps_total=80,
    )


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with an array task that was trained, one job without a checkpoint, and both kinds of export."""
    root = tmp_path_factory.mktemp("trained")
    (root / "experiments").mkdir()
    (root / SPEC).write_text(QUICK)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        patch.setenv("TDMPC_LAB_KERNELS", "torch")
        lab, spec = Project(root), load_spec(SPEC, ["train.checkpoint_every=40"]).spec
        jobs = [prepare_job(lab, job_id, QUICK, dump_yaml(spec), record) for job_id in (TASK, BARE)]
        trainer = build_trainer(spec, sink=MemorySink(), places=Places(CheckpointStore(jobs[0].checkpoints)))
        trainer.agent.learner.scale.value.fill_(3.0)
        trainer.run()
        for paths in jobs:
            EventLog(paths.events).append("finished", step=80, attempt=1)
        assert main(["export", TASK, "models/whole", "--training"]) == 0
        assert main(["export", f"{TASK}@40", "models/plain"]) == 0
    return root


@pytest.fixture
def lab(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    root = tmp_path / "lab"
    shutil.copytree(trained, root)
    monkeypatch.chdir(root)
    return Project(root)


def planned(lab: Project, source: str, *overrides: str) -> JobPlan:
    (ready,) = plan(lab, [SPEC], [f"train.start_from={source}", *overrides])
    return ready


def prepared(lab: Project, ready: JobPlan) -> JobPaths:
    return prepare(lab, ready, "local", CODE, None, 1)


def tensors(tree: Any) -> Iterator[Tensor]:
    for value in tree.values() if isinstance(tree, dict) else tree if isinstance(tree, list | tuple) else ():
        yield from [value] if isinstance(value, Tensor) else tensors(value)


def same(one: Any, other: Any) -> bool:
    pairs = list(zip(tensors(one), tensors(other), strict=True))
    return bool(pairs) and all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize(
    ("source", "job", "step", "optimizers", "words"),
    [
        (TASK, TASK, 80, True, f"{TASK} at step 80"),
        (f"{TASK}@40", TASK, 40, True, f"{TASK} at step 40"),
        (f"{TASK}@0_040", TASK, 40, True, f"{TASK} at step 40"),
        (f"jobs/{TASK}/checkpoints/step_000000040.pt", TASK, 40, True, f"{TASK} at step 40"),
        ("models/whole", None, 80, True, "models/whole at step 80"),
        ("models/plain/agent.pt", None, 40, False, "models/plain/agent.pt at step 40, its networks alone"),
    ],
)
def test_what_can_be_begun_with(
    lab: Project, source: str, job: str | None, step: int, optimizers: bool, words: str
) -> None:
    ready = planned(lab, source)
    assert ready.start is not None
    assert ready.start.told == {"agent": source, "job": job, "step": step, "optimizers": optimizers}
    assert str(ready.start) == words


def test_a_job_keeps_its_own_copy_without_the_replay(lab: Project, capsys: pytest.CaptureFixture[str]) -> None:
    ready = planned(lab, f"{TASK}@40")
    source = load_checkpoint(lab.job(TASK).checkpoints / "step_000000040.pt")
    shutil.rmtree(lab.job(TASK).folder)  # what was checked at submit is what is kept
    job = prepared(lab, ready)
    copy = load_checkpoint(job.start)
    assert same(copy["agent"]["model"], source["agent"]["model"])
    assert same(copy["agent"]["learner"], source["agent"]["learner"])
    assert copy["agent"].keys() == {"model", "learner"} and "replay" not in copy
    found = read_record(job)
    assert found.start_from == {"agent": f"{TASK}@40", "job": TASK, "step": 40, "optimizers": True}
    assert (found.parent, found.rerun_of) == (None, None)
    assert f"\n- starts from {TASK} at step 40\n" in lab.note(job.id).read_text()
    assert run_info(found, {}).tags["starts_from"] == f"{TASK} at step 40"
    assert main(["show", job.id, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["start_from"] == found.start_from
    assert main(["show", job.id]) == 0
    assert f"starts from {TASK} at step 40" in capsys.readouterr().out


def test_a_record_from_before_has_no_start(lab: Project) -> None:
    paths = lab.job(TASK)
    old = {key: value for key, value in asdict(read_record(paths)).items() if key != "start_from"}
    write_atomic(paths.record, json.dumps(old))
    assert (read_record(paths).start_from, read_record(paths).starts_from) == (None, "")


def test_optimizers_and_scale_come_along_and_the_settings_are_the_new_ones(lab: Project) -> None:
    job = prepared(lab, planned(lab, TASK, "agent.lr=0.01", "train.seed=7"))
    spec = load_spec(SPEC, ["agent.lr=0.01", "train.seed=7"]).spec
    agent, fresh = (build_agent(spec, 3, 1, 20) for _ in "ab")
    assert load_start(job.start, agent) == (80, True)
    source = load_checkpoint(lab.job(TASK).checkpoints / "step_000000080.pt")["agent"]
    assert same(agent.state_dict()["model"], source["model"])
    learned, before = agent.learner.state_dict(), source["learner"]
    assert same(learned, before) and learned["scale"]["value"] != 1
    assert learned["policy_optimizer"]["param_groups"][0]["lr"] == 0.01
    assert torch.equal(agent.generator.get_state(), fresh.generator.get_state())  # the new seed's draws

    job = prepared(lab, planned(lab, "models/plain"))
    assert load_start(job.start, fresh) == (40, False)
    assert not fresh.learner.policy_optimizer.state and fresh.learner.scale.value == 1


@pytest.mark.parametrize(("source", "first"), [(None, 40), ("some/agent", 0)])
def test_the_agent_itself_plays_the_seed_steps(
    lab: Project, monkeypatch: pytest.MonkeyPatch, source: str | None, first: int
) -> None:
    """A trained agent does not learn from random play first; a fresh one does, as ever."""
    spec = load_spec(SPEC).spec
    train = replace(spec.train, start_from=source, steps=44, envs=2)
    trainer = build_trainer(replace(spec, train=train, eval=None), sink=MemorySink())
    acting: list[int] = []
    act = trainer.agent.act

    def seen(*arguments: Any, **named: Any) -> Any:
        acting.append(trainer.step)
        return act(*arguments, **named)

    monkeypatch.setattr(trainer.agent, "act", seen)
    trainer.run()
    assert acting[0] == first


TOO_OTHER = """\
error: 4 problems; nothing was done
command line: agent.latent_dim: found 32, and train.start_from (1971498_3 at step 80) was made with 16 (write agent.latent_dim: 16)
command line: agent.encoder_norm: found on, and train.start_from (1971498_3 at step 80) was made with off (write agent.encoder_norm: off)
command line: agent.termination: found off, and train.start_from (1971498_3 at step 80) was made with on (write agent.termination: on)
command line: train.start_from: 1971498_3 at step 80 was made for observations of 3 values (of Pendulum-v1), and those of MountainCarContinuous-v0 have 2
"""  # noqa: E501
OTHER = ("agent.latent_dim=32", "agent.encoder_norm=on", "agent.termination=off", "env.id=MountainCarContinuous-v0")


def test_networks_of_other_sizes_are_refused_before_anything_is_written(
    lab: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(lab.root.rglob("*"))
    words = [SPEC, f"train.start_from={TASK}", *OTHER]
    assert main(["submit", *words, "--cluster", "local"]) == 2
    assert capsys.readouterr().err == TOO_OTHER
    assert main(["check", *words, "--cluster", "local"]) == 2
    told = capsys.readouterr().err
    assert all(line.removeprefix("error: ") in told for line in TOO_OTHER.splitlines()[1:])
    assert main(["check", *words, "--cluster", "local", "--obs-dim", "3", "--action-dim", "2"]) == 2
    assert "was made for actions of 1 values" in capsys.readouterr().err
    assert sorted(lab.root.rglob("*")) == before
    ready = planned(lab, TASK, "agent.lr=1e-3", "agent.horizon=4", "agent.policy_prior=cloned", "planner.samples=16")
    assert ready.start is not None  # what may differ


@pytest.mark.parametrize(
    ("source", "told"),
    [
        (f"{TASK}@50", f"job {TASK} has no checkpoint of step 50 (a job keeps its newest ones); there are {TASK}@40, "),
        (f"{TASK}@best", f"a whole number; there are {TASK}@40, {TASK}@80"),
        (BARE, f"job {BARE} has no checkpoint (yet): there is no agent to load"),
        (f"{BARE}@10", f"job {BARE} has no checkpoint (yet): there is no agent to load"),
        ("1971498", f"1971498 is a job array, and each of its 1 tasks is a job: name one of {TASK}"),
        ("1971499@40", "no job 1971499 in "),
        (SPEC, f"{SPEC}: this is a spec, no agent; allowed: a job id"),
        ("models/whole/spec.yaml", "this is a spec, no agent; did you mean models/whole/agent.pt?"),
        ("models/whol", "models/whol: no such file or folder; did you mean models/whole?"),
        ("models", "models: this folder holds no agent itself; did you mean models/plain or models/whole?"),
        (f"jobs/{TASK}", f"jobs/{TASK}: this is the folder of a job; give its id: {TASK}"),
        ("torn.pt", "torn.pt: can't be read as a checkpoint"),
    ],
)  # fmt: skip
def test_what_is_no_agent(lab: Project, capsys: pytest.CaptureFixture[str], source: str, told: str) -> None:
    (lab.root / "torn.pt").write_bytes(b"torn")
    spec = lab.root / SPEC
    spec.write_text(QUICK.replace("train: {", f"train: {{start_from: '{source}', "))
    for words in (["submit", SPEC, "--cluster", "local"], ["submit", SPEC, "--cluster", "local", "--skip-preflight"]):
        assert main(words) == 2
        error = capsys.readouterr().err
        assert error.startswith(f"error: {SPEC}:5: train.start_from: ") and told in error
    assert sorted(job_ids(lab)) == [TASK, BARE]


def test_every_key_that_shapes_the_networks_is_compared() -> None:
    """Whichever setting of the agent gives the networks another shape is one that a start is refused for."""
    small = AgentConfig(latent_dim=16, hidden_dim=16, hidden_layers=1, termination_dim=8, q_heads=2, bins=21)

    def shapes(config: AgentConfig) -> dict[str, torch.Size]:
        with torch.device("meta"):
            return {name: tensor.shape for name, tensor in WorldModel(3, 1, config).state_dict().items()}

    usual = shapes(small)
    for field in dataclasses.fields(AgentConfig):
        value = getattr(small, field.name)
        other: Any = not value if isinstance(value, bool) else 2 * value if isinstance(value, int | float) else None
        if field.name == "policy":
            other = "clipped_gaussian" if value == "squashed_gaussian" else "squashed_gaussian"
        if other is not None and shapes(replace(small, **{field.name: other})) != usual:
            assert f"agent.{field.name}" in NETWORK_KEYS


def test_a_rerun_begins_with_the_same_copy_and_a_resumed_job_never_again(
    lab: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    old = prepared(lab, planned(lab, TASK))
    kept = old.start.read_bytes()
    shutil.rmtree(lab.job(TASK).folder)
    ready, _ = plan_rerun(lab, old.id, [])
    again = prepared(lab, ready)
    assert same(load_checkpoint(again.start), load_checkpoint(old.start))
    assert read_record(again).start_from == read_record(old).start_from
    assert main(["rerun", old.id, "train.start_from=models/whol", "--cluster", "local"]) == 2  # another is looked for
    assert "did you mean models/whole?" in capsys.readouterr().err
    other, _ = plan_rerun(lab, old.id, ["train.start_from=models/whole"])
    assert other.start is not None and other.start.told["agent"] == "models/whole"
    assert main(["rerun", old.id, "agent.bins=31", "--cluster", "local"]) == 2
    assert f"agent.bins: found 31, and train.start_from ({TASK} at step 80) was made with 21" in capsys.readouterr().err

    (old.checkpoints / "step_000000040.pt").write_bytes(b"of the job itself")
    EventLog(old.events).append("finished", step=40, attempt=1)
    for change in ("train.start_from=models/plain", "agent.encoder_norm=on", "agent.termination=off"):
        assert main(["resume", old.id, change, "--cluster", "local"]) == 2
        assert f"a resumed job can't change {change.partition('=')[0]}" in capsys.readouterr().err
    resumed = prepared(lab, plan_resume(lab, old.id, [], None))
    found = read_record(resumed)
    assert (found.parent, found.starts_from) == (old.id, "")  # it continues from the job's own checkpoints
    assert "starts from" not in lab.note(resumed.id).read_text()
    assert resumed.start.read_bytes() == kept
    ready, _ = plan_rerun(lab, resumed.id, [])  # but from the beginning it is the same again
    assert ready.start is not None and str(ready.start) == f"{TASK} at step 80"


def test_a_sweep_begins_with_one_agent_and_a_dry_run_writes_nothing(
    lab: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(lab.root.rglob("*"))
    words = [f"train.start_from={TASK}", "sweep.train.seed=[2, 3]"]
    assert main(["submit", SPEC, *words, "--cluster", "slurm", "--skip-preflight", "--dry-run"]) == 0
    assert capsys.readouterr().out.count(f"  starts from {TASK} at step 80\n") == 2
    assert sorted(lab.root.rglob("*")) == before
    plans = plan(lab, [SPEC], words)
    first = prepare(lab, plans[0], "slurm", CODE, "2004711_0", None)
    shutil.rmtree(lab.job(TASK).checkpoints)  # it went on in the meantime
    second = prepare(lab, plans[1], "slurm", CODE, "2004711_1", None)
    assert first.start.samefile(second.start)  # the space of one
    shutil.rmtree(first.folder)
    assert load_checkpoint(second.start)["step"] == 80
    shutil.rmtree(second.folder)
    assert load_checkpoint(prepare(lab, plans[1], "slurm", CODE, "2004711_1", None).start)["step"] == 80


def test_the_next_piece_of_a_long_training_is_no_repeat(
    lab: Project, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same spec again, when another agent lies behind the name; with the same agent it is one."""
    launched: list[int] = []
    monkeypatch.setattr(commands, "_launch", lambda _project, plans, *_: launched.append(len(plans)) or 0)
    shutil.copytree("models/whole", "models/piece")
    job = prepared(lab, planned(lab, "models/piece"))
    EventLog(job.events).append("finished", step=80, attempt=1)
    assert main(["submit", SPEC, "train.start_from=models/piece", "--cluster", "local"]) == 2
    assert f"job {job.id}" in capsys.readouterr().err
    assert main(["export", f"{TASK}@40", "models/piece", "--training", "--force"]) == 0
    assert main(["submit", SPEC, "train.start_from=models/piece", "--cluster", "local"]) == 0
    assert launched == [1]


def test_an_export_says_what_it_holds_and_refuses_what_it_can_not(
    lab: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", TASK, "models/more", "--training"]) == 0
    size = Path("models/more/agent.pt").stat().st_size
    said = capsys.readouterr().out
    assert f"at step 80, {size / 1024:.1f} KiB (" in said and "KiB of it the networks)" in said
    assert "tdmpc-lab submit SPEC train.start_from=models/more" in said
    assert Path("models/plain/agent.pt").stat().st_size < size / 2
    assert main(["export", "models/plain", "models/new", "--training"]) == 2
    assert "holds networks alone, no optimizers and no running scale: leave --training out" in capsys.readouterr().err
    assert not Path("models/new").exists()
    assert main(["export", "models/more", "models/new", "--training"]) == 0  # a piece of a piece


def test_gc_leaves_the_checkpoint_that_a_spec_begins_with(lab: Project, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["gc", TASK, "--json"]) == 0
    assert "step_000000040.pt" in capsys.readouterr().out
    (lab.experiments / "fine.yaml").write_text(QUICK.replace("train: {", f"train: {{start_from: {TASK}@40, "))
    assert main(["gc", TASK, "--json"]) == 0
    assert "step_000000040.pt" not in capsys.readouterr().out


def test_a_copy_that_is_gone_is_told(lab: Project) -> None:
    job = prepared(lab, planned(lab, TASK))
    agent = build_agent(load_spec(SPEC).spec, 3, 1, 20)
    with pytest.raises(CheckpointError, match=r"fit the spec:\n  encoder.net.0.weight: \(16, 3\) in the checkpoint"):
        load_start(job.start, build_agent(load_spec(SPEC).spec, 4, 1, 20))  # of a submit that skipped the preflight
    job.start.unlink()
    with pytest.raises(CheckpointError, match="no such file"):
        load_start(job.start, agent)
