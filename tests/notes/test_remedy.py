"""What a note advises, by the way a job ended."""

from __future__ import annotations

import pytest

from tdmpc_lab.jobs.record import JobRecord
from tdmpc_lab.jobs.state import JobStatus, State, Why
from tdmpc_lab.notes.render import remedy

RECORD = JobRecord(
    id="2000001",
    experiment="quick",
    group="0",
    seed=1,
    cluster="slurm",
    resources={"memory": "3G"},
    spec_file="experiments/quick.yaml",
    submitted_at="2026-02-03T09:14:22+01:00",
    steps_total=100,
)
AGAIN = "`tdmpc-lab submit experiments/quick.yaml --again`"
RESUME = "`tdmpc-lab resume 2000001`"


def fix(
    state: State, why: Why | None = None, error: str = "", *, saved: bool = True, names_command: bool = False
) -> str:
    status = JobStatus(state=state, steps=100, node="node7", cause="…", why=why, names_command=names_command)
    return remedy(RECORD, status, error, saved=saved, again=AGAIN)


@pytest.mark.parametrize(
    ("state", "why", "error", "words"),
    [
        (State.FAILED, Why.GPU_MEMORY, "OutOfMemoryError", "train.batch_size"),
        (State.FAILED, Why.HOST_MEMORY, "MemoryError", "train.replay_capacity"),
        (State.FAILED, None, "NonFiniteError", "`tdmpc-lab resume 2000001 agent.lr=…`"),
        (State.FAILED, None, "ValueError", f"once the code is mended: {RESUME}"),
        (State.FAILED, Why.NODE, "", "slurm.extra.exclude=node7"),
        (State.FAILED, Why.KILLED, "", "log.err"),
        (State.CANCELLED, None, "", f"if it was a mistake: {RESUME}"),
        (State.TIMEOUT, None, "", "a longer slurm.time"),
        (State.UNKNOWN, None, "", "log.err"),
    ],
)
def test_what_to_do(state: State, why: Why | None, error: str, words: str) -> None:
    assert words in fix(state, why, error)


def test_the_memory_asked_for_is_named_although_the_cause_says_how_to_continue() -> None:
    assert "a larger slurm.memory (it had 3G)" in fix(State.FAILED, Why.ALLOCATION, names_command=True)


@pytest.mark.parametrize(
    ("state", "why", "error", "names_command"),
    [
        (State.COMPLETED, None, "", False),
        (State.RUNNING, None, "", False),
        (State.PENDING, None, "", False),
        (State.TIMEOUT, None, "", True),
        (State.FAILED, Why.DISK, "OSError", True),
        (State.FAILED, None, "CheckpointError", False),
    ],
)
def test_nothing_where_nothing_is_wrong_or_the_cause_says_it(
    state: State, why: Why | None, error: str, names_command: bool
) -> None:
    assert fix(state, why, error, names_command=names_command) == ""


def test_without_a_checkpoint_the_same_is_submitted_again() -> None:
    assert fix(State.CANCELLED, saved=False) == f"if it was a mistake: {AGAIN}"
    assert "resume" not in fix(State.FAILED, None, "NonFiniteError", saved=False)
