"""What a note advises, by the way a job ended."""

from __future__ import annotations

import pytest

from tdmpc_lab.jobs.record import JobRecord
from tdmpc_lab.jobs.state import JobStatus, State
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


def fix(state: State, cause: str | None = None, error: str = "", *, saved: bool = True) -> str:
    status = JobStatus(state=state, steps=100, node="node7", cause=cause)
    return remedy(RECORD, status, error, saved=saved, again=AGAIN)


@pytest.mark.parametrize(
    ("state", "cause", "error", "words"),
    [
        (State.FAILED, "OutOfMemoryError: CUDA out of memory", "OutOfMemoryError", "train.batch_size"),
        (State.FAILED, "it used more host memory than it asked for; continue with: tdmpc-lab resume 2000001",
         "", "a larger slurm.memory (it had 3G)"),
        (State.FAILED, "MemoryError: no message", "MemoryError", "train.replay_capacity"),
        (State.FAILED, "NaN or Inf at step 40 in loss/q", "NonFiniteError", "`tdmpc-lab resume 2000001 agent.lr=…`"),
        (State.FAILED, "ValueError: x, at my_env.py:3 in step", "ValueError", f"once the code is mended: {RESUME}"),
        (State.FAILED, "its node failed; log: jobs/2000001/log.err", "", "slurm.extra.exclude=node7"),
        (State.FAILED, "the process ended without an outcome: killed from outside, or out of memory", "", "log.err"),
        (State.CANCELLED, "cancelled by anna", "", f"if it was a mistake: {RESUME}"),
        (State.TIMEOUT, "SLURM ended it at its time limit; log: jobs/2000001/log.err", "", "a longer slurm.time"),
        (State.UNKNOWN, "its process 7 on node7 is gone and left no outcome", "", "log.err"),
    ],
)  # fmt: skip
def test_what_to_do(state: State, cause: str, error: str, words: str) -> None:
    assert words in fix(state, cause, error)


@pytest.mark.parametrize(
    ("state", "cause", "error"),
    [
        (State.COMPLETED, None, ""),
        (State.RUNNING, None, ""),
        (State.PENDING, "waiting", ""),
        (State.TIMEOUT, "it reached its time limit once (…); continue with: tdmpc-lab resume 2000001", ""),
        (
            State.FAILED,
            "the disk is full: make room, then continue with tdmpc-lab resume",
            "OSError",
        ),
        (State.FAILED, "no checkpoint can be read", "CheckpointError"),
    ],
)
def test_nothing_where_nothing_is_wrong_or_the_cause_says_it(state: State, cause: str | None, error: str) -> None:
    assert fix(state, cause, error) == ""


def test_without_a_checkpoint_the_same_is_submitted_again() -> None:
    assert fix(State.CANCELLED, "cancelled by anna", saved=False) == f"if it was a mistake: {AGAIN}"
    assert "resume" not in fix(State.FAILED, "NaN or Inf", "NonFiniteError", saved=False)
