"""Anything can stand in a file or on a command line: what can't be used is refused, with an error of our own."""

from __future__ import annotations

import contextlib
import json
import random
import subprocess
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from memory_sink import MemorySink
from tdmpc_lab.config.loader import load_spec, load_sweep
from tdmpc_lab.config.schema import (
    AgentConfig,
    EnvConfig,
    PlannerConfig,
    Spec,
    TrainConfig,
)
from tdmpc_lab.errors import CheckpointError, LabError, NoteError, RecordError, SpecError, UsageError
from tdmpc_lab.files import read_jsonl, tail_jsonl
from tdmpc_lab.jobs.find import require_jobs
from tdmpc_lab.jobs.paths import Project
from tdmpc_lab.jobs.record import JobRecord, read_record
from tdmpc_lab.launch.nodes import parse_sinfo
from tdmpc_lab.launch.queue import parse_sacct, parse_squeue
from tdmpc_lab.launch.sbatch import sbatch_script
from tdmpc_lab.notes.entries import parse_entry, rollup_lines
from tdmpc_lab.notes.handwritten import split_log
from tdmpc_lab.notes.note import BEGIN, END, put_verdict, replace_machine_part, take_apart
from tdmpc_lab.training.build import build_trainer
from tdmpc_lab.training.checkpoints import CheckpointStore, load_training, save_checkpoint
from tdmpc_lab.training.load import load_agent

QUICKLY = settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
HOSTILE = [
    *(
        "../../x",
        "/etc/passwd",
        "; rm -rf ~",
        "$(touch CANARY)",
        "`touch CANARY`",
        "'; touch CANARY; '",
        '"; touch CANARY; "',
    ),
    *(
        "a\nb",
        "a\n#SBATCH --uid=0",
        "a\r\ntouch CANARY",
        "a\0b",
        "\u0430dmin",
        "\u202eexe",
        "-rf",
        "--wrap=touch CANARY",
    ),
    *("|touch CANARY", "&touch${IFS}CANARY&", "x" * 10_000, "%j/%x", ".", "..", "~", "*", "\ud800", ""),
]
KEYS = [
    *(
        "name",
        "about",
        "why",
        "compare_to",
        "extends",
        "env.id",
        "env.options",
        "env.opponent",
        "agent.horizon",
        "slurm.time",
    ),
    *(
        "train.steps",
        "train.seed",
        "slurm.partition",
        "slurm.extra",
        "slurm.setup",
        "slurm.container",
        "phases",
        "sweep",
    ),
    *(
        "reward.shaping",
        "slurm.gpus",
        "slurm.after",
        "eval.opponents",
        "planner.samples",
        "slurm",
        "env",
        "profile",
        "nonsense",
    ),
]
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.sampled_from(HOSTILE),
    lambda inside: st.lists(inside, max_size=3) | st.dictionaries(st.text(max_size=8), inside, max_size=3),
    max_leaves=6,
)


OF_NOTES = [BEGIN, END, "```", "--> good: ", "\n", "##### 1", "\r\n", *HOSTILE]
of_records = st.sampled_from([field.name for field in fields(JobRecord)])


def as_bytes(text: str) -> bytes:
    return text.encode(errors="surrogatepass")


@contextlib.contextmanager
def nothing_written(root: Path) -> Iterator[None]:
    before = {path: path.lstat().st_mtime_ns for path in root.rglob("*")}
    yield
    assert {path: path.lstat().st_mtime_ns for path in root.rglob("*")} == before


def put(data: dict[str, Any], key: str, value: Any) -> None:
    section, _, name = key.partition(".")
    if not name:
        data[section] = value
    elif isinstance(data.setdefault(section, {}), dict):
        data[section][name] = value


@QUICKLY
@given(st.dictionaries(st.sampled_from(KEYS) | st.text(max_size=8), values, max_size=4), st.booleans())
def test_any_values_in_a_spec_are_taken_or_refused(tmp_path: Path, given_values: dict[str, Any], typed: bool) -> None:
    data: dict[str, Any] = {"env": {"id": "Pendulum-v1"}}
    words = [f"{key}={value}" for key, value in given_values.items()] if typed else []
    for key, value in {} if typed else given_values.items():
        put(data, key, value)
    folder = tmp_path / "experiments"
    folder.mkdir(exist_ok=True)
    (folder / "fuzz.yaml").write_text(yaml.safe_dump(data), encoding="utf-8", errors="replace")
    with nothing_written(tmp_path):
        try:
            for loaded in load_sweep(folder / "fuzz.yaml", words):
                assert loaded.spec.name
        except SpecError as error:
            assert error.problems
            assert str(error)
        except LabError as error:
            assert str(error)


@pytest.mark.parametrize(
    "text",
    [
        "a: &a [x, x, x, x, x, x, x, x, x]\n"
        + "".join(f"{c}: &{c} [{', '.join([f'*{b}'] * 9)}]\n" for b, c in zip("abcdefgh", "bcdefghi", strict=True)),
        "a: &a {b: *a}",
        "env: " + "[" * 5_000,
        "env: " + "{a: " * 5_000,
        "x: " + "1" * 2_000_000,
        "extends: fuzz.yaml",
        "extends: ../../../../etc/passwd",
        "extends: /dev/zero",
        "sweep: {train.seed: [" + "1, " * 20_000 + "1]}",
        "env: {id: Pendulum-v1}\nsweep: {"
        + ", ".join(
            f"{k}: [{', '.join(map(str, range(1, 300)))}]" for k in ("train.seed", "agent.horizon", "train.envs")
        )
        + "}",
    ],
    ids=["laughs", "own alias", "depth", "braces", "long", "itself", "elsewhere", "endless", "list", "product"],
)
@pytest.mark.timeout(20)
def test_bombs_are_refused_at_once(tmp_path: Path, text: str) -> None:
    path = tmp_path / "fuzz.yaml"
    path.write_text(text)
    with pytest.raises(LabError):
        load_sweep(path)


@QUICKLY
@given(
    st.text(max_size=300) | st.lists(st.sampled_from([*HOSTILE, "|", "7", "7_[0-3%2]", "RUNNING", "\n"])).map("".join)
)
@example("7_[0-999999999]|PENDING|day|1:00|None")
@example("7_[" + "0-9," * 500 + "1]|PENDING|day|1:00|None")
def test_whatever_a_scheduler_prints_is_read_or_left_out(text: str) -> None:
    assert len(parse_squeue(text)) <= 1_000_000
    parse_sacct(text, "me")
    with contextlib.suppress(LabError):
        parse_sinfo(text)


@QUICKLY
@given(st.binary(max_size=300) | st.lists(st.sampled_from(OF_NOTES)).map("".join).map(as_bytes))
def test_whatever_stands_in_a_note_is_kept_or_refused(note: bytes) -> None:
    rollup_lines(parse_entry("2004711", note))
    assert b"".join(piece.content for piece in split_log(note)) == note
    for change in (
        take_apart,
        lambda data: replace_machine_part(data, "new"),
        lambda data: put_verdict(data, "--> good: x"),
    ):
        with contextlib.suppress(NoteError):
            change(note)


@QUICKLY
@given(st.binary(max_size=100) | st.dictionaries(of_records | st.text(), values).map(json.dumps).map(as_bytes))
@example(b'{"id": ' + b"[" * 100_000)
@example(b'{"seed": ' + b"9" * 5_000 + b"}")
def test_whatever_stands_in_the_files_of_a_job_is_read_or_named(tmp_path: Path, content: bytes) -> None:
    paths = Project(tmp_path).job("7")
    paths.folder.mkdir(parents=True, exist_ok=True)
    paths.record.write_bytes(content)
    paths.events.write_bytes(content + b"\n" + content)
    with nothing_written(tmp_path):
        for read in (read_record, lambda _paths: read_jsonl(paths.events), lambda _paths: tail_jsonl(paths.events, 64)):
            with contextlib.suppress(RecordError):
                read(paths)


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_a_name_or_an_id_reaches_no_path(tmp_path: Path, text: str) -> None:
    project = Project(tmp_path)
    with pytest.raises(UsageError):
        project.job(text)
    with pytest.raises(UsageError):
        require_jobs(project, [text])
    path = tmp_path / "spec.yaml"
    path.write_text("env: {id: Pendulum-v1}")
    with contextlib.suppress(LabError):
        name = load_spec(path, [f"name={text}"]).spec.name
        assert name == "spec" or (tmp_path / name).resolve().parent == tmp_path.resolve()


def test_text_of_a_spec_is_no_command_of_the_batch_script(tmp_path: Path) -> None:
    """Every key that takes free text, with every hostile text that the loader lets through; the script is run for real,
    with stand-ins for the programs that it starts."""
    (tmp_path / "bin").mkdir()
    for name in ("srun", "scontrol", "scancel", "sacct", "squeue"):
        (tmp_path / "bin" / name).write_text("#!/bin/sh\nexit 0\n")
        (tmp_path / "bin" / name).chmod(0o755)
    spec = tmp_path / "spec.yaml"
    spec.write_text("env: {id: Pendulum-v1}\nslurm: {container: {image: lab.sif}}\n")
    keys = [
        "about",
        "slurm.account",
        "slurm.qos",
        "slurm.constraint",
        "slurm.partition",
        "slurm.mail.user",
        "slurm.nodelist",
    ]
    keys += ["slurm.container.image", "slurm.extra.comment", "slurm.extra.reservation", "name"]
    project, ran = Project(tmp_path), 0
    for key in keys:
        for text in HOSTILE:
            loaded = None
            with contextlib.suppress(LabError, UnicodeError):
                loaded = load_spec(spec, [f"{key}={text}"]).spec
            if loaded is None:
                continue
            with contextlib.suppress(LabError):
                script = sbatch_script(project, loaded.slurm, loaded.name, loaded.about)
                assert not [line for line in script.splitlines() if line.startswith("#SBATCH --uid")]
                subprocess.run(
                    ["bash", "-c", script],
                    cwd=tmp_path,
                    env={"PATH": f"{tmp_path / 'bin'}:/usr/bin:/bin", "SLURM_JOB_ID": "7"},
                    capture_output=True,
                    timeout=20,
                    check=False,
                )
                ran += 1
                assert not (tmp_path / "CANARY").exists(), f"{key}={text!r} ran a command"
    assert ran > 50


TINY = Spec(
    name="tiny",
    env=EnvConfig(id="Pendulum-v1", max_episode_steps=10),
    agent=AgentConfig(latent_dim=8, hidden_dim=8, hidden_layers=1, termination_dim=4, horizon=2, q_heads=2, bins=11),
    planner=PlannerConfig(samples=4, iterations=1, elites=2, policy_trajectories=1),
    train=TrainConfig(steps=30, seed_steps=25, batch_size=2, threads=1, device="cpu"),
)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    """A trainer, and the only checkpoint of its training."""
    from tdmpc_lab.training.build import Places

    folder = tmp_path_factory.mktemp("trained")
    trainer = build_trainer(TINY, sink=MemorySink(), places=Places(CheckpointStore(folder)))
    trainer.run()
    return trainer, CheckpointStore(folder).paths()[-1]


def leaves(tree: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    yield path
    for key, value in items:
        yield from leaves(value, (*path, key))


def replaced(tree: Any, path: tuple[Any, ...], value: Any) -> Any:
    if not path:
        return value
    copy = dict(tree) if isinstance(tree, dict) else list(tree)
    copy[path[0]] = replaced(tree[path[0]], path[1:], value)
    return copy


def test_any_part_of_a_checkpoint_may_be_something_else(trained: tuple[Any, Path], tmp_path: Path) -> None:
    """The checksum is right, and what it holds is not: taken, or refused with an error that names the checkpoint."""
    trainer, path = trained
    draw = random.Random(5)
    good = load_training(path)
    wrongs = [
        None,
        -1,
        10**30,
        float("nan"),
        "x",
        [],
        {},
        [[1]],
        torch.zeros(3),
        torch.zeros(0, 2),
        {"a": torch.ones(2)},
    ]
    places = [place for place in leaves(good) if place]
    refused = 0
    for place in draw.sample(places, min(len(places), 150)):
        state = replaced(good, place, draw.choice(wrongs))
        try:
            trainer.load_state_dict(state)
        except CheckpointError as error:
            refused += 1
            assert str(error)
    assert refused > 40
    for number, place in enumerate(draw.sample(places, 40)):
        broken = tmp_path / f"step_{number:09d}.pt"
        state = replaced(good, place, draw.choice(wrongs))
        replay = state["replay"]
        if isinstance(replay, dict):
            replay.pop("parts", None)
        save_checkpoint(broken, state)
        for load in (load_training, lambda file: load_agent(file, device="cpu")):
            with contextlib.suppress(CheckpointError):
                load(broken)


@QUICKLY
@given(st.data())
def test_any_bytes_of_a_checkpoint_may_be_something_else(
    trained: tuple[Any, Path], tmp_path: Path, data: st.DataObject
) -> None:
    content = bytearray(trained[1].read_bytes())
    kind = data.draw(st.sampled_from(["cut", "change", "other"]))
    at = data.draw(st.integers(0, len(content) - 1))
    if kind == "cut":
        content = content[:at]
    elif kind == "change":
        content[at] ^= data.draw(st.integers(1, 255))
    else:
        content = bytearray(data.draw(st.binary(max_size=200)))
    path = tmp_path / "step_000000030.pt"
    path.write_bytes(content)
    with pytest.raises(CheckpointError):
        load_training(path)
