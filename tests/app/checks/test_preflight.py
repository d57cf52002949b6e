"""The checks of a submit: what is wrong comes all at once, and what is alike is tried once."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from app_fixtures import QUICK

from tdmpc_lab.app.checks import memory as needs
from tdmpc_lab.app.checks import preflight, trial
from tdmpc_lab.app.checks.preflight import CheckReport, check_jobs
from tdmpc_lab.app.submit.specs import load_all
from tdmpc_lab.config.loader import LoadedSpec
from tdmpc_lab.errors import ExternalError, Finding, PreflightError
from tdmpc_lab.jobs.paths import Project
from tdmpc_lab.launch.nodes import parse_sinfo

SINFO = """\
test*|up|15:00|16|64000|gpu:2080ti:4|2|idle
day|up|1-00:00:00|16|64000|gpu:2080ti:4|2|idle
day|up|1-00:00:00|16|64000|gpu:strange:4|2|idle
"""
SLURM = "slurm: {partition: day, cpus: 4, memory: 8G, time: 1:00:00}\n"


@pytest.fixture
def lab(project: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    monkeypatch.setattr(preflight, "_ask_nodes", lambda: parse_sinfo(SINFO))
    return Project(project)


def load(lab: Project, text: str = QUICK + SLURM, *overrides: str, name: str = "a.yaml") -> list[LoadedSpec]:
    (lab.experiments / name).write_text(text)
    return load_all(lab, [f"experiments/{name}"], overrides)


def found(lab: Project, *overrides: str, **options: Any) -> list[Finding]:
    return list(check_jobs(lab, load(lab, QUICK + SLURM, *overrides), slurm=True, **options).findings)


def test_a_sound_spec_has_no_findings_and_nothing_is_written(lab: Project) -> None:
    report = check_jobs(lab, load(lab), slurm=True)
    assert report.findings == ()
    assert report.trials[0].environment_steps == 10
    report.raise_errors()
    assert sorted(path.name for path in lab.root.iterdir()) == ["experiments"]


def test_everything_comes_at_once_with_its_place(lab: Project) -> None:
    (lab.root / "notes").write_text("no folder")
    words = [
        "slurm.partition=dya",
        "slurm.time=2-00:00:00",
        "train.device=cuda",
        "train.replay_capacity=2000000000",
        "train.steps=1000000000",
        "slurm.container={image: lab.sif}",
    ]
    errors = [f for f in found(lab, *words) if f.level == "error"]
    assert [(f.check, f.where) for f in errors] == [
        ("slurm", "command line: slurm.partition"),
        ("container", "command line: slurm.container.image"),
        ("gpu", "command line: train.device"),
        ("memory", "experiments/a.yaml:7: slurm.memory"),
        ("folders", ""),
        *([("disk", "")] if errors[-1].check == "disk" else []),
    ]
    with pytest.raises(PreflightError) as caught:
        CheckReport(tuple(errors)).raise_errors()
    assert caught.value.exit_code == 2
    assert caught.value.problems == tuple(errors)
    assert "did you mean 'day'?" in str(caught.value)
    with pytest.raises(PreflightError) as outside:
        CheckReport(tuple(f for f in errors if f.exit_code == 3)).raise_errors()
    assert outside.value.exit_code == 3


@pytest.mark.parametrize(
    ("words", "level", "check", "said"),
    [
        (["slurm.gpus=2080ti:1"], "warning", "gpu", "asks for a GPU, but train.device is cpu"),
        (["slurm.gpus=2080ti:2", "train.device=auto"], "warning", "gpu", "training uses one (ask for one: 2080ti:1)"),
        (["slurm.gpus=strange:1", "train.device=auto"], "warning", "gpu-memory", "of GPU type 'strange' is not known"),
        (
            ["slurm.gpus=2080ti:1", "train.device=auto", "train.batch_size=3000000"],
            "error",
            "gpu-memory",
            "a 2080ti has",
        ),
        (
            ["slurm.gpus=1", "train.device=auto", "planner.samples=100000", "train.envs=2000"],
            "error",
            "gpu-memory",
            "a 2080ti has 11",
        ),
        (["slurm.memory=500M"], "warning", "memory", "asks for 0.5"),
        (["slurm.memory=null", "slurm.extra.mem-per-cpu=150"], "warning", "memory", "asks for 0.6"),
        (
            ["slurm.container={image: docker://a/b}", "slurm.setup=[x]"],
            "warning",
            "container",
            "is fetched when the job",
        ),
        (["slurm.container={image: no/x.sif}", "slurm.setup=[x]"], "warning", "container", "can't be seen from here"),
        (["slurm.gpus=A40000:1", "train.device=auto"], "error", "slurm", "has a GPU of type 'A40000'"),
        (["env.options.nonsense=1"], "error", "environment", "nonsense"),
        (["slurm.cpus=99"], "error", "slurm", "found 99, but no node of partition day has more than 16"),
    ],
)
def test_one_finding(lab: Project, words: list[str], level: str, check: str, said: str) -> None:
    (finding,) = found(lab, *words)
    assert (finding.level, finding.check) == (level, check)
    assert said in str(finding)
    assert finding.where


def test_a_container_may_have_what_is_missing_here(lab: Project) -> None:
    (lab.root / "lab.sif").touch()
    (lab.root / "data").mkdir()
    words = ["env.id=no_such_module:X-v0", "slurm.setup=[x]"]
    assert [f.level for f in found(lab, *words)] == ["error"]
    container = f"slurm.container={{image: lab.sif, bind: ['{lab.root}/data:/data', '/no/such/folder']}}"
    assert [(f.level, f.check) for f in found(lab, *words, container)] == [
        ("warning", "environment"),
        ("warning", "container"),
    ]


def test_slurm_that_does_not_answer(lab: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_answer() -> None:
        raise ExternalError("SLURM does not answer")

    monkeypatch.setattr(preflight, "_ask_nodes", no_answer)
    (finding,) = found(lab, try_agents=False)
    assert (finding.level, finding.exit_code) == ("error", 3)
    (finding,) = found(lab, try_agents=False, slurm_needed=False)
    assert finding.level == "warning"


def test_an_mlflow_server_that_is_down_is_a_warning(lab: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:secret@127.0.0.1:9")
    (finding,) = found(lab, try_agents=False)
    assert (finding.level, finding.check) == ("warning", "mlflow")
    assert "***@127.0.0.1:9 does not answer: " in finding.what
    assert "secret" not in str(finding)


def test_a_disk_that_is_full(lab: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    def usage(_path: Path) -> Any:
        return shutil._ntuple_diskusage(10**9, 10**9 - 50_000, 50_000)

    monkeypatch.setattr(needs.shutil, "disk_usage", usage)
    (finding,) = found(lab)
    assert (finding.level, finding.check, finding.exit_code) == ("error", "disk", 3)


def test_what_is_alike_is_tried_once(lab: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[int] = []
    original = trial._try_agent

    def counted(spec: Any, *args: Any) -> Any:
        tried.append(spec.agent.horizon)
        return original(spec, *args)

    monkeypatch.setattr(trial, "_try_agent", counted)
    sweep = "sweep: {agent.horizon: [3, 4], agent.lr: [1e-3, 1e-4], train.seed: [0, 1]}\n"
    report = check_jobs(lab, load(lab, QUICK + SLURM + sweep), slurm=True)
    assert len(report.trials) == 8
    assert tried == [3, 4]


def test_an_environment_that_fails_at_a_step(lab: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    from app_fixtures import USER_ENV

    (lab.root / "moody_of_preflight.py").write_text(USER_ENV.replace("Moody-v0", "MoodyPreflight-v0"))
    monkeypatch.syspath_prepend(lab.root)
    (finding,) = found(lab, "env.id=moody_of_preflight:MoodyPreflight-v0", "env.options={fail_at: 4}")
    assert (finding.level, finding.check, finding.where) == ("error", "trial", "experiments/a.yaml")
    assert "the puck left the universe" in finding.what


def test_memory_and_the_partitions_limit_can_be_silenced_by_name(lab: Project) -> None:
    words = ["slurm.partition=day", "slurm.time=2-00:00:00", "slurm.memory=500M", "slurm.gpus=strange:1"]
    loud = {f.check: f for f in found(lab, *words, "train.device=auto")}
    assert {"partition-time", "memory"} <= set(loud)
    assert loud["partition-time"].fix.endswith("; --no-lint partition-time for silence")
    assert "found 2-00:00:00, but partition day has a limit of 1-00:00:00" in loud["partition-time"].what
    silent = [f.check for f in found(lab, *words, "train.device=auto", off=["partition-time"])]
    assert "memory" in silent and "partition-time" not in silent
    silent = [f.check for f in found(lab, *words, "train.device=auto", "lint.silent=[memory]")]
    assert "partition-time" in silent and "memory" not in silent


def test_a_time_limit_is_blamed_on_where_it_comes_from(lab: Project) -> None:
    """The default, a profile's, the spec's; never on a file that does not have it."""
    (lab.root / "clusters.yaml").write_text("short:\n  partition: test\n  time: 2:00:00\n")

    def blamed(slurm: str, *overrides: str) -> str:
        items = load(lab, QUICK + slurm, *overrides)
        (finding,) = [f for f in check_jobs(lab, items, slurm=True).findings if f.check == "partition-time"]
        assert "ask for slurm.time=00:15:00 or less" in finding.fix
        return finding.where

    default = "slurm.time, which nothing sets (its default)"
    assert blamed("", "slurm.partition=test") == default
    assert blamed("slurm: {memory: 1G}\n", "slurm.partition=test", "sweep.train.seed=[1]") == default
    assert blamed("", "slurm.profile=short") == f"{lab.root / 'clusters.yaml'}:3: slurm.time"
    assert blamed("slurm: {time: 1:00:00}\n", "slurm.partition=test") == "experiments/a.yaml:7: slurm.time"
