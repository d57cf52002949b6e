from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tdmpc_lab.errors import RecordError
from tdmpc_lab.jobs import record as prepare
from tdmpc_lab.jobs.ids import expand_tasks, fold_tasks, is_job_id, is_local_id, is_slurm_id, natural_key, new_local_id
from tdmpc_lab.jobs.paths import Project
from tdmpc_lab.jobs.record import allocate_local_folder

NOW = datetime(2026, 2, 3, 9, 14, 22, 123456, tzinfo=UTC)


@pytest.mark.parametrize("text", ["1", "1971498", "1971498_3", "1971498_0"])
def test_slurm_ids(text: str) -> None:
    assert is_slurm_id(text)
    assert is_job_id(text)
    assert not is_local_id(text)


FOREIGN = [
    "",
    "0",
    "007",
    "123_[1,3%2]",
    "4%1",
    "1971498_",
    "1971498+1",
    "1971498.batch",
    "1971498\n",
    "١٢٣",
    "-1",
    "..",
    "../../x",
    "/etc",
    "local-20260203-091422-12",
    "local-20260203-091422-1234",
    "local-20260203-091422-123/..",
    "1" * 300,
]


@pytest.mark.parametrize("text", FOREIGN)
def test_foreign_ids_are_no_job_ids(text: str) -> None:
    assert not is_job_id(text)


def test_new_local_id_states_the_moment_as_given() -> None:
    assert new_local_id(NOW) == "local-20260203-091422-123"


@settings(deadline=None, max_examples=60)
@given(st.datetimes(min_value=datetime(1000, 1, 1)), st.datetimes(min_value=datetime(1000, 1, 1)))
def test_local_ids_are_job_ids_and_sort_by_time(one: datetime, other: datetime) -> None:
    first, second = new_local_id(min(one, other)), new_local_id(max(one, other))
    assert is_local_id(first)
    assert not is_slurm_id(first)
    assert first <= second


def test_natural_key_puts_task_9_before_task_10() -> None:
    assert sorted(["5_10", "5_9", "5"], key=natural_key) == ["5", "5_9", "5_10"]


def test_a_taken_id_moves_on_by_a_millisecond(tmp_path: Path) -> None:
    project = Project(tmp_path)
    made = [allocate_local_folder(project, NOW).id for _ in range(3)]
    assert made == [f"local-20260203-091422-{ms}" for ms in (123, 124, 125)]
    # A full second carries over.
    late = NOW.replace(microsecond=999_000)
    assert allocate_local_folder(project, late).id.endswith("22-999")
    assert allocate_local_folder(project, late).id == new_local_id(late + timedelta(milliseconds=1))


def test_submits_at_one_moment_never_share_a_folder(tmp_path: Path) -> None:
    project = Project(tmp_path)
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda _: allocate_local_folder(project, NOW).id, range(40)))
    assert len(set(made)) == 40


def test_running_out_of_ids_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prepare, "_MOST_TRIES", 2)
    project = Project(tmp_path)
    for _ in range(2):
        allocate_local_folder(project, NOW)
    with pytest.raises(RecordError, match="taken"):
        allocate_local_folder(project, NOW)


@settings(deadline=None)
@given(tasks=st.sets(st.integers(0, 300), min_size=1))
def test_folded_tasks_unfold(tasks: set[int]) -> None:
    assert expand_tasks(fold_tasks("7", tasks)) == [f"7_{task}" for task in sorted(tasks)]


def test_tasks_are_folded_as_squeue_does() -> None:
    assert fold_tasks("7", [5, 0, 1, 2, 9, 8]) == "7_[0-2,5,8-9]"
