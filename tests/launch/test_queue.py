"""What squeue, sacct and sinfo print, as recorded or after their manuals, and what is made of it."""

from __future__ import annotations

import os
import pwd
from pathlib import Path

import pytest

from tdmpc_lab.jobs.queued import QueueLine
from tdmpc_lab.jobs.state import SchedulerState
from tdmpc_lab.launch import commands as commands_module
from tdmpc_lab.launch.queue import Queue, parse_sacct, parse_squeue, reason_in_words, slurm_states, waits

GONE = SchedulerState("GONE")
ME = pwd.getpwuid(os.getuid()).pw_name

SQUEUE = """7|RUNNING|day|1-00:00:00|None
8|PENDING|day|1-00:00:00|JobHeldUser
9|PENDING|day|10:00|Nodes required for job are DOWN, DRAINED or reserved | for others
10|TIMEOUT|test|15:00|TimeLimit
11|CANCELLED|test|15:00|None
12|COMPLETING|test|15:00|None
13_[0-2,5%2]|PENDING|test|15:00|Resources
13_4|RUNNING|test|15:00|None
14|NODE_FAIL|test|15:00|None
14|PENDING|test|15:00|BeginTime
15|SOMETHING_NEW|test|15:00|None
16|PENDING|test|16:00|PartitionTimeLimit
123_[1,3%2]|PENDING|test|15:00|Priority
123_[x-y]|PENDING|test|15:00|Priority
4%1|RUNNING|test|15:00|None
no line at all
|RUNNING|test|15:00|None
"""

# As sacct 22.05 printed it, but for OUT_OF_MEMORY and what stands below it, which that cluster does not do.
SACCT = f"""3628025|{ME}|FAILED|1:0
3628026|{ME}|COMPLETED|0:0
3628027|{ME}|NODE_FAIL|0:0
3628028|{ME}|CANCELLED by {os.getuid()}|0:0
3628029|{ME}|TIMEOUT|0:0
3628030|{ME}|FAILED|0:9
3628032|{ME}|FAILED|11:0|0:11
3628033|{ME}|FAILED|137:0|137:0
3628034|{ME}|FAILED|200:0|200:0
3628036|{ME}|FAILED|9:0|9:0
3628031_0|{ME}|CANCELLED by 4294000000|0:0
3628031_[1-2%1]|{ME}|PENDING|0:0
3628040|{ME}|OUT_OF_MEMORY|0:125
3628041|{ME}|RUNNING|0:0
3628042|someone|RUNNING|0:0
3628043|someone|PENDING|0:0
3628044|{ME}|PREEMPTED|0:0
not a line
3628045|{ME}||0:0
"""


def stand_in(folder: Path, name: str, text: str) -> None:
    (folder / name).write_text(f"#!/bin/sh\n{text}\n")
    (folder / name).chmod(0o755)


@pytest.fixture
def commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of stand-ins for SLURM's commands, and nothing else on the path."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    return folder


def prints(folder: Path, name: str, text: str) -> None:
    """A stand-in that prints the text and notes how it was called."""
    stand_in(
        folder, name, f'echo "{name} $@" >> {folder}/calls; while IFS= read -r x; do echo "$x"; done <<END\n{text}END'
    )


def calls(folder: Path) -> list[str]:
    return [line.partition(" ")[0] for line in (folder / "calls").read_text().splitlines()]


def test_lines_of_squeue() -> None:
    lines = parse_squeue(SQUEUE)
    assert lines["7"] == QueueLine("RUNNING", "day", "1-00:00:00", "None")
    assert lines["14"].word == "PENDING"
    assert sorted(lines) == sorted(
        ["7", "8", "9", "10", "11", "12", "13_0", "13_1", "13_2", "13_5", "13_4", "14", "15", "16", "123_1", "123_3"]
    )


def test_words_of_a_newer_slurm_are_no_end(commands: Path) -> None:
    """A job of a state that is not known here waits or runs, by its nodes; accounts that know no end say nothing."""
    rest = "|test|15:00|None|me|1:00|1|{}|N/A|x|/lab|name\n"
    there = [("7|EXPEDITING", ""), ("8|THAWING", "node7"), ("9|THAWING", "node7"), ("9|COMPLETED", "")]
    words = "".join(start + rest.format(node) for start, node in there)
    prints(commands, "squeue", words)
    prints(commands, "sacct", f"10|{ME}|EXPEDITING|0:0\n11|somebody|THAWING|0:0\n")
    states = slurm_states(["7", "8", "9", "10", "11"])
    assert [states[job].state for job in ("7", "8", "9")] == ["PENDING", "RUNNING", "RUNNING"]
    assert states["8"].reason == "THAWING"
    assert states["10"] == SchedulerState("GONE", "the queue does not know it; the accounts still call it EXPEDITING")
    assert states["11"].state == "RUNNING"
    queue = Queue(parse_squeue(words + "12|TIMEOUT" + rest.format("")))
    assert [queue.alive(job) for job in ("7", "8", "9", "12", "13")] == [True, True, True, False, False]
    assert [waits(queue.lines[job]) for job in ("7", "8")] == [True, False]


def test_what_the_accounts_call_over_is_over_without_a_controller(commands: Path) -> None:
    stand_in(commands, "squeue", "echo 'Unable to contact slurm controller' >&2; exit 1")
    prints(commands, "sacct", SACCT)
    states = slurm_states(["3628025", "3628041", "3628042", "3628999"])
    assert states["3628025"] == SchedulerState("GONE", "FAILED (exit code 1)")
    assert {states[job].state for job in ("3628041", "3628042", "3628999")} == {"UNREACHABLE"}


def test_lines_of_sacct() -> None:
    stale = "the queue does not know it; the accounts still call it"
    ends = {
        "3628025": "FAILED (exit code 1)",
        "3628026": "COMPLETED",
        "3628027": "NODE_FAIL",
        "3628028": f"CANCELLED by {ME}",
        "3628029": "TIMEOUT",
        "3628030": "FAILED (its process was ended by SIGKILL)",
        "3628032": "FAILED (its process was ended by SIGSEGV)",
        "3628033": "FAILED (exit code 137, as a shell says SIGKILL)",
        "3628034": "FAILED (exit code 200)",
        "3628036": "FAILED (exit code 9, as srun hands on SIGKILL)",
        "3628031_0": "CANCELLED by user 4294000000",
        "3628031_1": f"{stale} PENDING",
        "3628031_2": f"{stale} PENDING",
        "3628040": "OUT_OF_MEMORY",
        "3628041": f"{stale} RUNNING",
        "3628044": "PREEMPTED",
    }
    assert parse_sacct(SACCT, ME) == {
        **{job_id: SchedulerState("GONE", text) for job_id, text in ends.items()},
        "3628042": SchedulerState("RUNNING"),
        "3628043": SchedulerState("PENDING"),
    }


def test_one_call_each_for_any_number_of_jobs(commands: Path) -> None:
    prints(commands, "squeue", SQUEUE)
    prints(commands, "sacct", SACCT)
    prints(commands, "sinfo", "test|15:00\nday|1-00:00:00\n")
    many = [str(n) for n in range(1000, 4000)]
    states = slurm_states(["7", "16", "10", "3628028", "3628031_0", "123_[1,3%2]", "local-x", *many])
    assert states["7"] == SchedulerState("RUNNING")
    assert states["16"].reason == "the partition's time limit is 15:00, you asked for 16:00"
    assert states["10"] == SchedulerState("GONE", "TIMEOUT (TimeLimit)")
    assert states["3628028"] == SchedulerState("GONE", f"CANCELLED by {ME}")
    assert states["3628031_0"].reason.startswith("CANCELLED by user")
    assert {states[i] for i in ("123_[1,3%2]", "local-x", *many)} == {GONE}
    assert calls(commands) == ["squeue", "sinfo", "sacct"]
    assert slurm_states([]) == {}
    assert slurm_states(["7", "9"])["9"].reason.startswith("the nodes it needs are down")
    assert calls(commands)[3:] == ["squeue"]


def test_who_cancelled_it_is_asked_of_the_accounts_and_the_queue_wins_where_they_lag(commands: Path) -> None:
    prints(commands, "squeue", "5|CANCELLED|test|15:00|None\n6|TIMEOUT|test|15:00|None\n")
    prints(commands, "sacct", f"5|{ME}|CANCELLED by {os.getuid()}|0:0\n6|{ME}|RUNNING|0:0\n")
    states = slurm_states(["5", "6"])
    assert states["5"].reason == f"CANCELLED by {ME}"
    assert states["6"].reason == "TIMEOUT"


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("echo 'Slurm accounting storage is disabled' >&2; exit 1", "SLURM keeps no accounts"),
        ("echo 'sacct: error: slurm_persist_conn_open: Connection refused' >&2; exit 1", "Connection refused"),
        (None, "sacct is not on this machine"),
    ],
)
def test_without_accounts_the_queue_is_believed(commands: Path, script: str | None, words: str) -> None:
    prints(commands, "squeue", "7|RUNNING|test|15:00|None\n10|TIMEOUT|test|15:00|TimeLimit\n")
    if script is not None:
        stand_in(commands, "sacct", script)
    states = slurm_states(["7", "8", "10"])
    assert states["7"] == SchedulerState("RUNNING")
    assert states["10"].reason == "TIMEOUT (TimeLimit)"
    assert states["8"].state == "GONE"
    assert words in states["8"].reason


def test_no_squeue_is_unreachable(commands: Path) -> None:
    assert slurm_states(["7"])["7"].state == "UNREACHABLE"
    assert "squeue is not on this machine" in slurm_states(["7"])["7"].reason


def test_a_silent_controller_is_unreachable(commands: Path) -> None:
    words = "slurm_load_jobs error: Unable to contact slurm controller (connect failure)"
    stand_in(commands, "squeue", f"echo '{words}' >&2; exit 1")
    state = slurm_states(["7"])["7"]
    assert state.state == "UNREACHABLE"
    assert words in state.reason


def test_a_squeue_that_hangs_is_unreachable(commands: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commands_module, "_TIMEOUT_S", 0.2)
    stand_in(commands, "squeue", "exec /bin/sleep 30")
    assert "no answer" in slurm_states(["7"])["7"].reason


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        ("Priority", "other jobs go first (Priority)"),
        ("Dependency", "another job has to end first (Dependency)"),
        ("QOSMaxJobsPerUserLimit", "a limit of its quality of service is reached (QOSMaxJobsPerUserLimit)"),
        ("AssocGrpCpuLimit", "a limit of your account is reached (AssocGrpCpuLimit)"),
        (
            "ReqNodeNotAvail, UnavailableNodes:node7",
            "the nodes it needs are down, reserved or busy (ReqNodeNotAvail, UnavailableNodes:node7)",
        ),
        ("JobHeldUser", "it is held; let it go with: scontrol release 7 (JobHeldUser)"),
        (
            "job requeued in held state",
            "it was put back into the queue and is held; let it go with: scontrol release 7 "
            "(job requeued in held state)",
        ),
        ("SomethingNew", "SomethingNew"),
        ("", ""),
    ],
)
def test_reasons_in_words(reason: str, words: str) -> None:
    assert reason_in_words("7", reason, "day", "16:00", None) == words


@pytest.mark.parametrize("word", ["REQUEUE_HOLD", "SPECIAL_EXIT"])
def test_a_held_state_without_a_reason(word: str) -> None:
    line = f"7|{word}|day|16:00|None|me|0:00|1||2026-11-28T16:36:32|x|/|quick\n"
    (state,) = slurm_states(["7"], Queue(parse_squeue(line))).values()
    assert (state.state, state.reason) == ("PENDING", "it is held; let it go with: scontrol release 7")
    assert state.line is not None and state.line.held


def test_a_limit_that_is_not_known() -> None:
    text = reason_in_words("7", "PartitionTimeLimit", "test", "16:00", None)
    assert text == "it asks for more time than the time limit of partition test"
