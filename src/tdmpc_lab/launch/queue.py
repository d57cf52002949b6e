"""What SLURM says of jobs: the queue for those that wait and run, the accounts for how the others ended.

One call of squeue and one of sacct, for any number of jobs.
"""

from __future__ import annotations

import pwd
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tdmpc_lab.errors import ExternalError, UsageError
from tdmpc_lab.jobs.ids import expand_tasks, is_slurm_id
from tdmpc_lab.jobs.requests import person
from tdmpc_lab.jobs.state import SchedulerState
from tdmpc_lab.launch.commands import command
from tdmpc_lab.launch.reasons import LIMITED_BY_PARTITION, reason_in_words

_SQUEUE = ("squeue", "--noheader", "--array", "--format=%i|%T|%P|%l|%r", "--states=all", "--me")
_SACCT = ("sacct", "--allocations", "--noheader", "--parsable2", "--allusers", "--format=JobID,User,State,ExitCode")
_SINFO = ("sinfo", "--noheader", "--format=%R|%l")
_WAITS = frozenset({"PENDING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "RESV_DEL_HOLD", "SPECIAL_EXIT"})
_RUNS = frozenset(
    {"RUNNING", "CONFIGURING", "COMPLETING", "RESIZING", "SIGNALING", "STAGE_OUT", "STOPPED", "SUSPENDED"}
)
_NO_CODE = frozenset({"COMPLETED", "CANCELLED", "TIMEOUT", "OUT_OF_MEMORY", "NODE_FAIL"})  # the word says it all


@dataclass(frozen=True)
class Line:
    """A job in squeue."""

    word: str
    """Its state as SLURM calls it."""
    partition: str
    limit: str
    """Its time limit: `16:00`, `1-00:00:00`."""
    reason: str


def slurm_states(job_ids: Sequence[str]) -> dict[str, SchedulerState]:
    """What SLURM says about these jobs; ids that are none of SLURM's are unknown to it.

    The accounts are asked only for what the queue no longer knows or calls over; a cluster that keeps none says
    of those as much as the queue does. Never raises for want of SLURM: where the queue can't be read, every job
    is UNREACHABLE, with the reason.
    """
    if not job_ids:
        return {}
    try:
        queue = parse_squeue(command(_SQUEUE))
    except (ExternalError, UsageError) as error:
        return dict.fromkeys(job_ids, SchedulerState("UNREACHABLE", str(error).splitlines()[0]))
    limits = _limits(queue, job_ids)
    states = {i: _state(queue[i], limits) if i in queue else SchedulerState("GONE") for i in job_ids}
    over = [job_id for job_id, state in states.items() if state.state == "GONE" and is_slurm_id(job_id)]
    return states | _from_accounts(over, states)


def parse_squeue(text: str) -> dict[str, Line]:
    """Lines by job id, from `id|state|partition|limit|reason`; what means nothing here is left out."""
    lines: dict[str, Line] = {}
    for text_line in text.splitlines():
        parts = text_line.strip().split("|", 4)
        if len(parts) != 5:
            continue
        line = Line(*parts[1:])
        for job_id in expand_tasks(parts[0]):
            # While a job is requeued there can be two lines: the one that goes on counts.
            if job_id not in lines or lines[job_id].word not in _WAITS | _RUNS:
                lines[job_id] = line
    return lines


def _limits(queue: Mapping[str, Line], job_ids: Sequence[str]) -> dict[str, str]:
    """Time limit by partition, asked for only where a job waits because of it."""
    if not any(queue[i].reason == LIMITED_BY_PARTITION for i in job_ids if i in queue):
        return {}
    try:
        rows = (line.strip().partition("|") for line in command(_SINFO).splitlines())
    except (ExternalError, UsageError):
        return {}
    return {name: limit for name, _, limit in rows if limit}


def _state(line: Line, limits: Mapping[str, str]) -> SchedulerState:
    reason = "" if line.reason in ("None", "(null)") else line.reason
    if line.word in _WAITS:
        return SchedulerState(
            "PENDING", reason_in_words(reason, line.partition, line.limit, limits.get(line.partition))
        )
    if line.word in _RUNS:
        return SchedulerState("RUNNING", "" if line.word == "RUNNING" else line.word)
    # The end in SLURM's own word; the reason mostly repeats it (TimeLimit, NonZeroExitCode).
    return SchedulerState("GONE", f"{line.word} ({reason})" if reason else line.word)


def _from_accounts(job_ids: Sequence[str], known: Mapping[str, SchedulerState]) -> dict[str, SchedulerState]:
    """How these jobs ended by the accounts; jobs of which they say nothing new are left out."""
    if not job_ids:
        return {}
    wanted = dict.fromkeys(job_id.partition("_")[0] for job_id in job_ids)
    try:
        accounts = parse_sacct(command([*_SACCT, f"--jobs={','.join(wanted)}"]), me=person())
    except (ExternalError, UsageError) as error:
        why = "SLURM keeps no accounts" if "disabled" in str(error) else f"the accounts say nothing: {error}"
        return {i: SchedulerState("GONE", why) for i in job_ids if not known[i].reason}
    # The accounts may lag behind the queue: where both have a word for the end, they must agree on it.
    return {
        job_id: found
        for job_id in job_ids
        if (found := accounts.get(job_id)) is not None
        and (not known[job_id].reason or known[job_id].reason.split()[0] == (found.reason.split() or [""])[0])
    }


def parse_sacct(text: str, me: str) -> dict[str, SchedulerState]:
    """States by job id, from `id|user|state|exit code`.

    The queue was asked for my jobs and did not know this one: accounts that call it alive are out of date.
    Another person's job is believed to be as they say.
    """
    states: dict[str, SchedulerState] = {}
    for line in text.splitlines():
        parts = line.strip().split("|")
        if len(parts) != 4 or not parts[2]:
            continue
        word = parts[2].split()[0].rstrip("+")
        if word not in _WAITS | _RUNS:
            state = SchedulerState("GONE", _end_in_words(parts[2], word, parts[3]))
        elif parts[1] == me:
            state = SchedulerState("GONE", f"the queue does not know it; the accounts still call it {word}")
        else:
            state = SchedulerState("PENDING" if word in _WAITS else "RUNNING")
        states |= dict.fromkeys(expand_tasks(parts[0]), state)  # a later line is a later attempt
    return states


def _end_in_words(text: str, word: str, code: str) -> str:
    """`CANCELLED by anna`, `FAILED (exit code 3)`, `FAILED (signal 9)`: SLURM's own word first."""
    if match := re.fullmatch(r"CANCELLED by (\d+)", text):
        return f"CANCELLED by {_name(int(match[1]))}"
    exit_code, _, number = code.partition(":")
    if word in _NO_CODE or code in ("", "0:0"):
        return word
    return f"{word} ({f'signal {number}' if number not in ('', '0') else f'exit code {exit_code}'})"


def _name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except (KeyError, OverflowError):
        return f"user {uid}"
