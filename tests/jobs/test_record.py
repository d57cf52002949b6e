from __future__ import annotations

import dataclasses
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tdmpc_lab.errors import RecordError
from tdmpc_lab.jobs.paths import JobPaths, Project
from tdmpc_lab.jobs.record import JobRecord, read_record, write_record

FULL = JobRecord(
    id="1971498_3",
    array_id="1971498",
    array_task=3,
    experiment="backprop",
    env_id="hockey",
    about="ohne Reward-Shaping \ud800 → ja",
    why="does it break the stagnation?",
    group="0123456789",
    seed=3,
    overrides=("agent.horizon=9",),
    compare_to="baseline",
    diff=("agent.horizon 18 → 9",),
    git_commit="a" * 40,
    git_dirty=True,
    snapshot="jobs/.code/abc",
    cluster="slurm",
    resources={"gpus": "2080ti:1", "cpus": 4},
    command=("tdmpc-lab", "submit", "x.yaml"),
    spec_file="experiments/x.yaml",
    submitted_at="2026-02-03T09:14:22+01:00",
    parent="1971497",
    steps_total=500_000,
    max_local=None,
)


@pytest.fixture
def paths(tmp_path: Path) -> JobPaths:
    job = Project(tmp_path).job(FULL.id)
    job.folder.mkdir(parents=True)
    return job


def test_a_record_comes_back_as_written(paths: JobPaths) -> None:
    write_record(paths, FULL)
    assert read_record(paths) == FULL
    assert FULL.submitted == datetime(2026, 2, 3, 8, 14, 22, tzinfo=UTC)
    assert [entry.name for entry in paths.folder.iterdir()] == ["job.json"]


def test_a_record_is_written_once(paths: JobPaths) -> None:
    write_record(paths, FULL)
    with pytest.raises(RecordError, match="written once"):
        write_record(paths, dataclasses.replace(FULL, about="changed"))
    assert read_record(paths) == FULL


def test_a_record_of_another_job_is_refused(paths: JobPaths) -> None:
    with pytest.raises(RecordError, match="the record is of job 5"):
        write_record(paths, dataclasses.replace(FULL, id="5"))
    assert not paths.record.exists()
    paths.record.write_text(json.dumps({**dataclasses.asdict(FULL), "id": "5"}))
    with pytest.raises(RecordError, match="says it is job 5"):
        read_record(paths)


def test_unknown_keys_are_ignored_and_optional_ones_default(paths: JobPaths) -> None:
    needed = ("id", "experiment", "group", "seed", "cluster", "spec_file", "submitted_at", "steps_total")
    data = {key: getattr(FULL, key) for key in needed}
    paths.record.write_text(json.dumps({**data, "from_the_future": [1]}))
    record = read_record(paths)
    assert (record.about, record.overrides, record.resources, record.git_dirty) == ("", (), {}, None)
    for key in needed:
        paths.record.write_text(json.dumps({k: v for k, v in data.items() if k != key}))
        with pytest.raises(RecordError, match=rf"job\.json: {key} is missing"):
            read_record(paths)


@pytest.mark.parametrize(
    ("key", "value", "wanted"),
    [
        ("experiment", 5, "a text"),
        ("why", None, "a text"),
        ("seed", "1", "an integer"),
        ("seed", True, "an integer"),
        ("seed", 1.0, "an integer"),
        ("array_task", "3", "an integer or null"),
        ("git_dirty", 1, "true, false or null"),
        ("parent", 7, "a text or null"),
        ("diff", "a", "a list of texts"),
        ("diff", ["a", 1], "a list of texts"),
        ("resources", [], "an object"),
    ],
)
def test_a_wrong_type_names_file_key_and_what_it_should_be(paths: JobPaths, key: str, value: Any, wanted: str) -> None:
    paths.record.write_text(json.dumps({**dataclasses.asdict(FULL), key: value}))
    with pytest.raises(RecordError, match=rf"job\.json: {key} is .*; it should be {wanted}"):
        read_record(paths)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"id": "19', "can't be read"),
        (b"", "can't be read"),
        (b"\xff\xfe", "can't be read"),
        (b"[1]", "holds a list"),
    ],
)
def test_a_torn_record_is_named(paths: JobPaths, content: bytes, message: str) -> None:
    paths.record.write_bytes(content)
    with pytest.raises(RecordError, match=rf"job\.json: .*{message}"):
        read_record(paths)


def test_a_missing_record_is_named(paths: JobPaths) -> None:
    with pytest.raises(RecordError, match="1971498_3 is no job, or is still being made"):
        read_record(paths)


def test_a_submit_time_that_is_none_is_an_error(paths: JobPaths) -> None:
    wrong = dataclasses.replace(FULL, submitted_at="yesterday")
    write_record(paths, wrong)
    with pytest.raises(RecordError, match="yesterday"):
        read_record(paths)
    with pytest.raises(RecordError, match="yesterday"):
        _ = wrong.submitted
