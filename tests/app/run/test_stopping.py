from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from tdmpc_lab.app.run.stopping import Ending, ending
from tdmpc_lab.config.schema import SlurmConfig
from tdmpc_lab.jobs.events import WITHDRAWN, cancelled_since
from tdmpc_lab.jobs.record import JobRecord
from tdmpc_lab.launch.sbatch import CANCEL_CODE, REQUEUE_CODE

T0 = datetime(2026, 2, 3, 9, 0, 0, tzinfo=UTC)
RECORD = JobRecord(
    id="7",
    experiment="x",
    group="0",
    seed=1,
    cluster="slurm",
    spec_file="x.yaml",
    submitted_at=T0.isoformat(),
    steps_total=10,
)
HOUR = SlurmConfig(time=timedelta(hours=1), max_requeues=2)


def at(minutes: float) -> str:
    return (T0 + timedelta(minutes=minutes)).isoformat()


def end_of(reason: str, minutes: float, *, earlier=(), requests=(), slurm=HOUR, record=RECORD) -> Ending:
    events = [*earlier, {"time": at(0), "event": "started"}]
    return ending(reason, record, slurm, events, list(requests), T0 + timedelta(minutes=minutes))


LIMIT = {"time": at(-60), "event": "preempted", "why": "time limit"}
PREEMPTION = {"time": at(-60), "event": "preempted", "why": "preemption"}


def test_the_time_limit_and_its_last_time():
    first = end_of("SIGUSR2", 58)
    assert first == Ending("preempted", {"signal": "SIGUSR2", "why": "time limit"}, REQUEUE_CODE)
    assert end_of("SIGUSR2", 58, earlier=[LIMIT]).event == "preempted"
    assert end_of("SIGUSR2", 58, earlier=[LIMIT, PREEMPTION, PREEMPTION]).event == "preempted"
    last = end_of("SIGUSR2", 58, earlier=[LIMIT, LIMIT])
    assert (last.event, last.exit_code) == ("timeout", 1)
    assert "3 times" in last.fields["reason"]
    assert "tdmpc-lab resume 7" in last.fields["reason"]
    never = end_of("SIGUSR2", 58, slurm=replace(HOUR, max_requeues=0))
    assert (never.event, "once" in never.fields["reason"]) == ("timeout", True)


def test_usr2_long_before_the_limit_is_a_preemption_and_never_counts():
    slurm = replace(HOUR, max_requeues=0)
    assert end_of("SIGUSR2", 5, slurm=slurm) == Ending(
        "preempted", {"signal": "SIGUSR2", "why": "preemption"}, REQUEUE_CODE
    )


def test_a_long_setup_counts_towards_the_time_limit():
    """Half an hour of `setup` lines, then 28 minutes of training: the limit of an hour has come."""
    events = [{"time": at(0), "event": "started"}]
    script = T0 - timedelta(minutes=30)
    end = ending("SIGUSR2", RECORD, HOUR, events, [], T0 + timedelta(minutes=28), script)
    assert end.fields["why"] == "time limit"
    assert ending("SIGUSR2", RECORD, HOUR, events, [], T0 + timedelta(minutes=28)).fields["why"] == "preemption"


def test_term_is_a_cancellation_only_if_somebody_asked_for_one_since_the_start():
    asked = {"time": at(3), "request": "cancel", "by": "anna"}
    assert end_of("SIGTERM", 5, requests=[asked]) == Ending("stopped", {"reason": "cancelled by anna"}, CANCEL_CODE)
    before = {**asked, "time": at(-3)}
    for requests in ([], [before], [{"time": at(3), "request": "resume"}]):
        assert end_of("SIGTERM", 5, requests=requests).event == "preempted"
    assert end_of("SIGTERM", 5).exit_code == 143


def test_a_cancellation_that_was_taken_back_or_is_long_ago_is_no_cause_of_an_end():
    asked, back = ({"time": at(3), "request": name, "by": "anna"} for name in ("cancel", WITHDRAWN))
    assert end_of("SIGTERM", 5, requests=[asked, back]).event == "preempted"
    assert end_of("SIGTERM", 5, requests=[asked, back, asked]).event == "stopped"
    assert end_of("SIGTERM", 14, requests=[asked]).event == "preempted"  # no signal takes eleven minutes
    assert cancelled_since([asked, back], None) is None


def test_usr1_is_a_request_to_save_and_end():
    asked = {"time": at(3), "request": "cancel", "by": "anna", "save": True}
    assert end_of("SIGUSR1", 5, requests=[asked]).fields == {"reason": "cancelled by anna"}
    assert end_of("SIGUSR1", 5) == Ending("stopped", {"reason": "SIGUSR1"}, CANCEL_CODE)


def test_a_job_of_this_machine_is_stopped_for_good():
    local = replace(RECORD, cluster="local")
    for reason in ("SIGTERM", "SIGINT", "SIGUSR2"):
        assert end_of(reason, 58, record=local) == Ending("stopped", {"reason": reason}, None)
