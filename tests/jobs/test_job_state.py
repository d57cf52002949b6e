from __future__ import annotations

import dataclasses
import math
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tdmpc_lab.jobs.record import JobRecord
from tdmpc_lab.jobs.state import JobStatus, SchedulerState, State, derive_status

T0 = datetime(2026, 2, 3, 9, 0, 0, tzinfo=UTC)
LOCAL = JobRecord(
    id="local-20260203-090000-000",
    experiment="quickstart",
    group="0123456789",
    seed=1,
    cluster="local",
    spec_file="experiments/quickstart.yaml",
    submitted_at=T0.isoformat(),
    steps_total=5000,
    max_local=1,
)
SLURM = dataclasses.replace(LOCAL, id="1971498", cluster="slurm", max_local=None)
LOG = f"jobs/{LOCAL.id}/log.err"

PENDING, RUNNING = SchedulerState("PENDING"), SchedulerState("RUNNING")
GONE, UNREACHABLE = SchedulerState("GONE"), SchedulerState("UNREACHABLE", "squeue: timed out")


def event(kind: str, second: float, **fields: Any) -> dict[str, Any]:
    return {"time": (T0 + timedelta(seconds=second)).isoformat(), "event": kind, **fields}


def started(second: float, attempt: int = 1) -> dict[str, Any]:
    return event("started", second, host="node7", pid=4242, attempt=attempt)


def status(
    events: list[dict[str, Any]],
    scheduler: SchedulerState | None,
    *,
    rows: list[dict[str, Any]] | None = None,
    record: JobRecord = LOCAL,
    second: float = 100,
) -> JobStatus:
    return derive_status(record, events, rows or [], T0 + timedelta(seconds=second), scheduler)


FINISHED, FAILED = event("finished", 70, step=5000), event("failed", 70, cause="NaN in loss/reward", step=40)
STOPPED, PREEMPTED = (
    event("stopped", 70, reason="SIGINT", step=40),
    event("preempted", 70, signal="SIGUSR1", step=40),
)
PLACE = "waiting for a free place (1 at a time)"
VANISHED = f"its process 4242 on node7 is gone and left no outcome; log: {LOG}"
LAST_KNOWN = "the scheduler can't be reached (squeue: timed out): this is what was last known"


@pytest.mark.parametrize(
    ("events", "scheduler", "state", "cause"),
    [
        # Nothing reported yet.
        ([], PENDING, State.PENDING, PLACE),
        ([], SchedulerState("PENDING", "the device\nis busy"), State.PENDING, "the device is busy"),
        ([], RUNNING, State.RUNNING, "starting, nothing reported yet"),
        ([], UNREACHABLE, State.PENDING, LAST_KNOWN),
        ([], GONE, State.UNKNOWN, f"its process is gone and never reported a start; log: {LOG}"),
        (
            [],
            None,
            State.UNKNOWN,
            f"its process is not known to the scheduler and never reported a start; log: {LOG}",
        ),
        # Started, no outcome.
        ([started(10)], RUNNING, State.RUNNING, None),
        ([started(10)], GONE, State.UNKNOWN, VANISHED),
        ([started(10)], None, State.UNKNOWN, VANISHED.replace("gone", "not known to the scheduler")),
        ([started(10)], UNREACHABLE, State.RUNNING, LAST_KNOWN),
        (
            [started(10)],
            SchedulerState("UNREACHABLE"),
            State.RUNNING,
            LAST_KNOWN.replace(" (squeue: timed out)", ""),
        ),
        (
            [started(10)],
            SchedulerState("GONE", "host node8"),
            State.UNKNOWN,
            VANISHED.replace(";", " (host node8);"),
        ),
        # SLURM's words mean nothing where there is no SLURM.
        (
            [started(10)],
            SchedulerState("GONE", "TIMEOUT"),
            State.UNKNOWN,
            VANISHED.replace(";", " (TIMEOUT);"),
        ),
        # An outcome wins over whatever the scheduler says.
        *[([started(10), FINISHED], s, State.COMPLETED, None) for s in (RUNNING, PENDING, GONE, UNREACHABLE, None)],
        ([started(10), FAILED], RUNNING, State.FAILED, "NaN in loss/reward"),
        ([started(10), STOPPED], GONE, State.CANCELLED, "stopped by SIGINT"),
        (
            [started(10), event("stopped", 70, reason="cancelled by anna")],
            GONE,
            State.CANCELLED,
            "cancelled by anna",
        ),
        ([started(10), event("timeout", 70, reason="the limit")], GONE, State.TIMEOUT, "the limit"),
        ([started(10), event("stopped", 70)], GONE, State.CANCELLED, "no reason given"),
        ([started(10), event("failed", 70, error="ValueError: x\ny")], GONE, State.FAILED, "ValueError: x y"),
        ([started(10), event("failed", 70)], GONE, State.FAILED, f"it gave no cause; log: {LOG}"),
        # It may fail before it could report a start, and talk on after the outcome.
        ([FAILED], GONE, State.FAILED, "NaN in loss/reward"),
        ([started(10), FINISHED, event("warning", 80, message="MLflow")], GONE, State.COMPLETED, None),
        # The last of two outcomes counts.
        ([started(10), FAILED, FINISHED], GONE, State.COMPLETED, None),
        # A later start takes an outcome back.
        ([started(10), FAILED, started(80, 2)], RUNNING, State.RUNNING, None),
        ([started(10), FAILED, started(80, 2)], GONE, State.UNKNOWN, VANISHED),
        ([started(10), FAILED, started(80, 2), event("finished", 90)], GONE, State.COMPLETED, None),
        # ... and an outcome that names an earlier attempt came too late.
        ([started(10), started(80, 2), {**FAILED, "attempt": 1}], RUNNING, State.RUNNING, None),
        (
            [started(10), started(80, 2), {**FAILED, "attempt": 2}],
            RUNNING,
            State.FAILED,
            "NaN in loss/reward",
        ),
        # Preempted is no outcome: it waits for its next attempt.
        ([started(10), PREEMPTED], PENDING, State.PENDING, PLACE),
        ([started(10), PREEMPTED], UNREACHABLE, State.PENDING, LAST_KNOWN),
        ([started(10), PREEMPTED], GONE, State.UNKNOWN, VANISHED.replace(";", " after SIGUSR1 at step 40;")),
        (
            [started(10), event("preempted", 70)],
            GONE,
            State.UNKNOWN,
            VANISHED.replace(";", " after a preemption;"),
        ),
    ],
)
def test_state_and_cause(
    events: list[dict[str, Any]], scheduler: SchedulerState | None, state: State, cause: str | None
) -> None:
    found = status(events, scheduler)
    assert (found.state, found.cause) == (state, cause)
    assert found.steps == 5000


@pytest.mark.parametrize(
    ("reason", "state", "cause"),
    [
        ("TIMEOUT", State.TIMEOUT, "SLURM ended it at its time limit"),
        ("DEADLINE", State.TIMEOUT, "SLURM ended it at its deadline"),
        ("CANCELLED by anna", State.CANCELLED, "cancelled in SLURM by anna"),
        ("CANCELLED+", State.CANCELLED, "cancelled in SLURM"),
        ("OUT_OF_MEMORY", State.FAILED, "SLURM ended it: it used more host memory than it asked for"),
        ("NODE_FAIL", State.FAILED, "its node failed"),
        ("BOOT_FAIL", State.FAILED, "its node did not come up"),
        ("FAILED (exit code 3)", State.FAILED, "SLURM says it failed and it left no outcome (exit code 3)"),
        (
            "PREEMPTED",
            State.CANCELLED,
            "a job of a higher partition took its place, and SLURM did not start it again",
        ),
        ("COMPLETED", State.UNKNOWN, "its process 4242 on node7 is gone and left no outcome (COMPLETED)"),
        ("", State.UNKNOWN, "its process 4242 on node7 is gone and left no outcome"),
    ],
)
def test_what_slurm_knows_of_the_end_is_believed(reason: str, state: State, cause: str) -> None:
    found = status([started(10)], SchedulerState("GONE", reason), record=SLURM)
    assert (found.state, found.cause) == (state, f"{cause}; log: jobs/1971498/log.err")
    assert found.state.ended is (state is not State.UNKNOWN)


SIGNS = "the scheduler does not say that it runs{}, but its process sends heartbeats"
AWAY = "the scheduler can't be reached (squeue: timed out), and its process {}; log: jobs/1971498/log.err"


@pytest.mark.parametrize(
    ("scheduler", "heartbeat_s", "state", "cause"),
    [
        # No end is known: the heartbeat decides.
        (GONE, 3.0, State.RUNNING, SIGNS.format("")),
        (
            SchedulerState("GONE", "SLURM keeps no accounts"),
            60.0,
            State.RUNNING,
            SIGNS.format(" (SLURM keeps no accounts)"),
        ),
        (GONE, 61.0, State.UNKNOWN, None),
        (GONE, math.inf, State.UNKNOWN, None),
        (GONE, None, State.UNKNOWN, None),
        # SLURM's word that it ended is believed, but for a node that it does not see.
        (SchedulerState("GONE", "TIMEOUT"), 3.0, State.TIMEOUT, None),
        (SchedulerState("GONE", "CANCELLED by anna"), 3.0, State.CANCELLED, None),
        (SchedulerState("GONE", "COMPLETED"), 3.0, State.UNKNOWN, None),
        (SchedulerState("GONE", "NODE_FAIL"), 3.0, State.RUNNING, SIGNS.format(" (NODE_FAIL)")),
        (SchedulerState("GONE", "NODE_FAIL"), 300.0, State.FAILED, None),
        # Nobody can be asked: what was last known holds while there is a heartbeat, or never was one.
        (UNREACHABLE, 3.0, State.RUNNING, LAST_KNOWN),
        (UNREACHABLE, None, State.RUNNING, LAST_KNOWN),
        (UNREACHABLE, 303.0, State.UNKNOWN, AWAY.format("has sent no heartbeat for 5:03")),
        (UNREACHABLE, math.inf, State.UNKNOWN, AWAY.format("has ended")),
    ],
)
def test_the_heartbeat_counts(
    scheduler: SchedulerState, heartbeat_s: float | None, state: State, cause: str | None
) -> None:
    seen = dataclasses.replace(scheduler, heartbeat_s=heartbeat_s)
    found = status([started(10)], seen, record=SLURM)
    assert found.state is state
    assert cause is None or found.cause == cause
    assert (
        status([started(10), PREEMPTED], dataclasses.replace(UNREACHABLE, heartbeat_s=math.inf)).state is State.PENDING
    )
    assert status([started(10), FINISHED], seen, record=SLURM).state is State.COMPLETED


def test_the_remedy_is_named_where_there_is_a_checkpoint() -> None:
    events = [started(10), event("checkpoint", 20, step=100)]
    for reason, state, cause in (
        ("TIMEOUT", State.TIMEOUT, "SLURM ended it at its time limit; continue with: tdmpc-lab resume 1971498"),
        ("NODE_FAIL", State.FAILED, "its node failed; continue with: tdmpc-lab resume 1971498"),
        ("CANCELLED by anna", State.CANCELLED, "cancelled in SLURM by anna"),
    ):
        found = status(events, SchedulerState("GONE", reason), record=SLURM)
        assert (found.state, found.cause) == (state, f"{cause}; log: jobs/1971498/log.err")


def test_a_job_that_stopped_to_be_started_again_and_was_not() -> None:
    limit = event("preempted", 70, signal="SIGUSR2", why="time limit", step=40)
    found = status([started(10), limit], SchedulerState("GONE", "FAILED (exit code 1)"), record=SLURM)
    assert found.state is State.TIMEOUT
    assert found.cause is not None
    assert "saved and stopped (time limit), and SLURM did not start it again" in found.cause
    assert status([started(10), limit], PENDING, record=SLURM).state is State.PENDING
    for reason, state in (("CANCELLED by anna", State.CANCELLED), ("TIMEOUT", State.TIMEOUT)):
        assert status([started(10), limit], SchedulerState("GONE", reason), record=SLURM).state is state


def test_waiting_in_words() -> None:
    assert status([], PENDING, record=SLURM).cause == "waiting in SLURM's queue"
    many = dataclasses.replace(LOCAL, max_local=None)
    assert status([], PENDING, record=many).cause == "waiting for a free place"


def test_never_killed() -> None:
    for events in ([], [started(10)], [started(10), PREEMPTED]):
        for scheduler in (None, GONE, UNREACHABLE, PENDING, RUNNING):
            assert "kill" not in (status(events, scheduler).cause or "")


def test_a_running_job_in_full() -> None:
    evaluation = {"step": 1000, "split": "eval", "attempt": 1, "return_mean": -150.0}
    rows = [
        {"step": 500, "split": "train", "attempt": 1, "wall_s": 10.0, "steps_per_s": 40.0, "return": -300.0},
        evaluation,
        {"step": 2000, "split": "train", "attempt": 1, "wall_s": 50.0, "steps_per_s": 50.0},
    ]
    events = [started(10), event("tracking", 11, run_id="abc"), event("checkpoint", 30, step=1500)]
    assert status(events, RUNNING, rows=rows) == JobStatus(
        state=State.RUNNING,
        cause=None,
        attempt=1,
        node="node7",
        pid=4242,
        started_at=T0 + timedelta(seconds=10),
        ended_at=None,
        step=2000,
        steps=5000,
        steps_per_s=50.0,
        eta_s=60.0,
        elapsed_s=90.0,
        latest_return=-300.0,
        latest_eval=evaluation,
        run_id="abc",
    )


def test_a_finished_job_in_full() -> None:
    rows = [{"step": 4900, "split": "train", "attempt": 1, "steps_per_s": 50.0}]
    found = status([started(10), FINISHED], None, rows=rows)
    assert (found.step, found.elapsed_s, found.eta_s) == (5000, 60.0, None)
    assert found.ended_at == T0 + timedelta(seconds=70)
    assert found.node == "node7"


def test_elapsed_leaves_out_the_waiting_between_attempts() -> None:
    events = [started(10), PREEMPTED, started(1000, 2)]
    assert status(events, RUNNING, second=1030).elapsed_s == 60 + 30
    assert status([*events, event("finished", 1040)], None).elapsed_s == 60 + 40
    # Without an outcome it counts to the last heartbeat.
    assert status([*events, event("checkpoint", 1020, step=100)], GONE, second=9999).elapsed_s == 60 + 20
    assert status(events[:2], PENDING, second=500).elapsed_s == 60
    waiting = status(events[:2], PENDING, second=500)
    assert (waiting.node, waiting.pid, waiting.attempt) == (None, None, 1)


def test_an_attempt_that_was_killed_ran_to_its_last_sign_of_life() -> None:
    events = [started(10), event("checkpoint", 20, step=7), started(1000, 2), event("ready", 1003)]
    signs = {1: T0 + timedelta(seconds=70), 2: T0 + timedelta(seconds=1190)}
    record = dataclasses.replace(SLURM)
    killed = SchedulerState("GONE", "FAILED (its process was ended by SIGKILL)")

    def seen(events: list[dict[str, Any]], scheduler: SchedulerState | None, second: float = 9999) -> JobStatus:
        return derive_status(record, events, [], T0 + timedelta(seconds=second), scheduler, signs.get)

    last = seen(events, killed)
    assert (last.state, last.elapsed_s) == (State.FAILED, 60 + 190)
    assert last.cause is not None
    assert "it left no outcome (its process was ended by SIGKILL)" in last.cause
    assert seen(events, RUNNING, second=1030).elapsed_s == 60 + 30  # the second attempt runs
    # Whoever says how it ended gives signs for a moment longer, for its note and MLflow: that is no training.
    assert seen([*events, event("finished", 1100, attempt=2)], None).elapsed_s == 60 + 100
    assert seen([started(10), PREEMPTED, *events[2:]], killed).elapsed_s == 60 + 190


@pytest.mark.parametrize(
    ("events", "elapsed"),
    [
        ([], None),
        ([{"event": "started"}], None),
        ([{"event": "started", "time": "soon"}, FINISHED], None),
        ([started(10), {"event": "finished"}], 0.0),
        ([started(10), event("checkpoint", 30), {"event": "finished", "time": 7}], 20.0),
        ([started(90), FINISHED], 0.0),  # ended before it started, by two machines' clocks
        ([FAILED], None),
        ([started(90), started(70, 2), event("finished", 75)], 5.0),
    ],
)
def test_times_that_are_torn_or_run_backwards(events: list[dict[str, Any]], elapsed: float | None) -> None:
    assert status(events, GONE).elapsed_s == elapsed


def test_a_start_in_the_future_has_taken_no_time_yet() -> None:
    assert status([started(500)], RUNNING, second=100).elapsed_s == 0.0
    naive = (T0 + timedelta(seconds=100)).astimezone().replace(tzinfo=None)
    assert derive_status(LOCAL, [started(40)], [], naive, RUNNING).elapsed_s == 60.0


def train(step: int, attempt: int = 1, **fields: Any) -> dict[str, Any]:
    return {"step": step, "split": "train", "attempt": attempt, **fields}


@pytest.mark.parametrize(
    ("events", "rows", "step"),
    [
        ([], [], None),
        ([started(10)], [], None),
        ([started(10)], [train(500), train(1000)], 1000),
        ([started(10), event("checkpoint", 20, step=1200)], [train(1000)], 1200),
        ([started(10), event("finished", 20)], [train(1000)], 1000),
        ([started(10), event("finished", 20, step=5000)], [train(1000)], 5000),
        # The second attempt went back to its checkpoint; the rows of the first are no longer the truth.
        ([started(10), started(20, 2), event("resumed", 21, step=500, attempt=2)], [train(1000)], 500),
        ([started(10), started(20, 2), event("resumed", 21, step=500)], [train(1000), train(600, 2)], 600),
        ([started(10), started(20, 2)], [train(1000)], 1000),  # nothing better is known yet
        ([started(10)], [{"step": 700}, {"step": "x"}, {}], 700),
    ],
)
def test_step(events: list[dict[str, Any]], rows: list[dict[str, Any]], step: int | None) -> None:
    assert status(events, RUNNING, rows=rows).step == step


@pytest.mark.parametrize(
    ("rows", "rate"),
    [
        ([], None),
        ([train(500, steps_per_s=40.0), train(1000)], 40.0),
        ([train(500, steps_per_s=float("nan")), train(1000)], None),
        ([train(500, steps_per_s=0.0)], None),
        ([train(500, wall_s=10.0, updates=9), train(600), train(1000, wall_s=20.0)], 50.0),
        ([train(500, wall_s=10.0)], None),
        ([train(500, wall_s=0.1, updates=0), train(1000, wall_s=0.2, updates=0)], None),
        ([train(500, wall_s=0.1, updates=0), train(900, wall_s=0.2)], None),
        ([train(500, wall_s=0.1, updates=0), train(1000, wall_s=20.0, updates=9), train(1500, wall_s=40.0)], 25.0),
        # The updates from the seed steps and an evaluation, or another one at a step of its own, take no steps.
        (
            [
                train(1000, wall_s=1.0),
                train(1000, wall_s=200.0, updates=1000),
                {"step": 1000, "split": "eval", "attempt": 1, "wall_s": 450.0},
                train(1020, wall_s=454.0),
            ],
            5.0,
        ),
        (
            [
                train(1000, wall_s=200.0, updates=1000),
                {"step": 1010, "split": "eval", "attempt": 1, "wall_s": 450.0},
                train(1020, wall_s=452.0),
            ],
            5.0,
        ),
        ([train(500, wall_s=20.0), train(1000, wall_s=10.0)], None),
        ([train(500, wall_s=10.0), train(500, wall_s=20.0)], None),
        # A row of another attempt says nothing of this one.
        ([train(500, attempt=2, steps_per_s=40.0)], None),
    ],
)
def test_speed_and_time_left(rows: list[dict[str, Any]], rate: float | None) -> None:
    found = status([started(10)], RUNNING, rows=rows)
    assert found.steps_per_s == rate
    assert found.eta_s == (None if rate is None else (5000 - (found.step or 0)) / rate)


SEED_STEPS = event("warm_up", 20, step=1000, updates=1000)


@pytest.mark.parametrize(
    ("events", "rows", "learns"),
    [
        ([started(10)], [train(900, updates=0)], False),
        ([started(10), SEED_STEPS], [], True),
        ([started(10), SEED_STEPS], [train(900, updates=0), train(1000)], True),
        ([started(10), SEED_STEPS], [train(1000, updates=1000)], False),
        ([started(10), SEED_STEPS], [train(1000), train(1100)], False),
        ([started(10), SEED_STEPS, event("checkpoint", 60, step=1000)], [train(900, updates=0)], False),
        # Preempted between two of the updates, and going on with them.
        (
            [
                started(10),
                SEED_STEPS,
                event("checkpoint", 30, step=1000),
                event("preempted", 31, step=1000),
                started(50, 2),
                event("resumed", 51, step=1000, attempt=2),
            ],
            [train(1000)],
            True,
        ),
        ([started(10), SEED_STEPS, started(50, 2), event("resumed", 51, step=900, attempt=2)], [train(900)], False),
        ([started(10), SEED_STEPS, started(50, 2), event("resumed", 51, step=900), SEED_STEPS], [train(900)], True),
    ],
)
def test_a_job_that_learns_from_its_seed_steps_says_so(
    events: list[dict[str, Any]], rows: list[dict[str, Any]], learns: bool
) -> None:
    found = status(events, RUNNING, rows=rows)
    assert found.cause == ("learning from the seed steps: 1,000 updates" if learns else None)
    if learns:
        assert (found.step, found.steps_per_s) == (1000, None)
    assert status(events, GONE, rows=rows).state is State.UNKNOWN


def test_time_left_is_never_negative() -> None:
    assert status([started(10)], RUNNING, rows=[train(6000, steps_per_s=10.0)]).eta_s == 0.0


def test_attempts_are_counted_where_they_are_not_stated() -> None:
    bare = {"event": "started"}
    assert status([bare], RUNNING).attempt == 1
    assert status([bare, FAILED, bare], RUNNING).attempt == 2
    assert status([], RUNNING).attempt == 0
    cause = status([bare], GONE).cause
    assert cause == f"its process is gone and left no outcome; log: {LOG}"


def test_a_cause_is_one_line_of_bounded_length() -> None:
    cause = status([started(10), event("failed", 20, cause="a\n" * 1000)], GONE).cause
    assert cause is not None
    assert "\n" not in cause
    assert len(cause) == 300


scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-10, 10_000),
    st.floats(),
    st.text(max_size=5),
    st.just(T0.isoformat()),
)
kinds = st.sampled_from(
    [
        "started",
        "finished",
        "failed",
        "stopped",
        "preempted",
        "resumed",
        "checkpoint",
        "tracking",
        "x",
        None,
        3,
    ]
)
fields = st.sampled_from(["time", "attempt", "host", "pid", "step", "cause", "reason", "run_id", "signal"])
torn_events = st.lists(
    st.builds(lambda kind, rest: {"event": kind, **rest}, kinds, st.dictionaries(fields, scalars)), max_size=6
)
row_keys = st.sampled_from(["step", "split", "attempt", "wall_s", "steps_per_s", "return"])
row_values = st.one_of(scalars, st.sampled_from(["train", "eval"]))
torn_rows = st.lists(st.dictionaries(row_keys, row_values), max_size=4)


@settings(deadline=None, max_examples=200)
@given(torn_events, torn_rows, st.sampled_from([None, PENDING, RUNNING, GONE, UNREACHABLE]))
def test_torn_events_and_rows_never_crash(
    events: list[dict[str, Any]], rows: list[dict[str, Any]], scheduler: SchedulerState | None
) -> None:
    found = status(events, scheduler, rows=rows)
    for seconds in (found.elapsed_s, found.eta_s):
        assert seconds is None or seconds >= 0
    if found.state in (State.UNKNOWN, State.FAILED, State.CANCELLED):
        assert found.cause
