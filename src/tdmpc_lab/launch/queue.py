"""What SLURM says of jobs: the queue for those that wait and run, the accounts for how the others ended.

One call of squeue and one of sacct, for any number of jobs.

Also here: why a job waits in SLURM's queue, in plain words; SLURM's own word stays beside them, to look it up by.
"""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from tdmpc_lab.errors import ExternalError, UsageError
from tdmpc_lab.jobs.events import person
from tdmpc_lab.jobs.ids import expand_tasks, is_slurm_id
from tdmpc_lab.jobs.queued import QueueLine
from tdmpc_lab.jobs.state import END_WORDS, SchedulerState
from tdmpc_lab.launch.commands import command
from tdmpc_lab.sharing import user_name

_SQUEUE = (
    "squeue", "--noheader", "--array", "--format=%i|%T|%P|%l|%r|%u|%M|%D|%N|%S|%k|%Z|%j", "--states=all",
)  # fmt: skip
_FIELDS = 13
_LEAST_FIELDS = 5
_SACCT = (
    "sacct",
    "--allocations",
    "--noheader",
    "--parsable2",
    "--allusers",
    "--format=JobID,User,State,ExitCode,DerivedExitCode",
)
_SINFO = ("sinfo", "--noheader", "--format=%R|%l")
_WAITS = frozenset({"PENDING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "RESV_DEL_HOLD", "SPECIAL_EXIT"})
_RUNS = frozenset(
    {"RUNNING", "CONFIGURING", "COMPLETING", "RESIZING", "SIGNALING", "STAGE_OUT", "STOPPED", "SUSPENDED"}
)
_SACCT_ALONE_S = 10.0  # where squeue gave no answer, nobody is to wait long for a second one
# What ends a process from outside or by a fault of its own; no job here ends with one of these as its exit code.
_HANDED_ON = frozenset(
    str(int(name))
    for name in (
        signal.SIGILL, signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM
    )
)  # fmt: skip
_SIGNALLED = 128  # a shell adds it to the signal that ended a process
_NO_CODE = frozenset({"COMPLETED", "CANCELLED", "TIMEOUT", "OUT_OF_MEMORY", "NODE_FAIL"})  # the word says it all


@dataclass(frozen=True)
class Queue:
    """What squeue says of this user's jobs, and of those of others that were asked for, at one moment."""

    lines: Mapping[str, QueueLine] = field(default_factory=dict)
    """By job id; also jobs that ended a moment ago."""
    problem: str | None = None
    """Why it could not be read, in one line."""
    others: frozenset[str] = frozenset()
    """Users whose jobs are in it, beside this one's."""

    def alive(self, job_id: str) -> bool:
        """Whether a job waits or runs."""
        line = self.lines.get(job_id)
        return line is not None and line.word not in END_WORDS


def ask_queue(timeout_s: float | None = None, users: Collection[int] = ()) -> Queue:
    """The queue now: jobs of this user, and of `users` who share a project. Never raises for want of SLURM."""
    others = sorted({*users} - {os.getuid()})
    # --me where it is enough: SLURM then sends this user's jobs alone; of several users, squeue gets all and chooses.
    whose = [f"--user={','.join(map(str, [os.getuid(), *others]))}"] if others else ["--me"]
    try:
        lines = parse_squeue(command([*_SQUEUE, *whose], timeout_s))
        return Queue(lines, others=frozenset(map(user_name, others)))
    except (ExternalError, UsageError) as error:
        return Queue(problem=str(error).splitlines()[0])


def waits(line: QueueLine) -> bool:
    """Whether a line of the queue is of a job that has not started, or not again. A state that is not known here is
    told by its nodes: a job that waits has none."""
    return line.word in _WAITS or (line.word not in _RUNS and not line.nodelist)


def slurm_states(job_ids: Sequence[str], queue: Queue | None = None) -> dict[str, SchedulerState]:
    """What SLURM says about these jobs; ids that are none of SLURM's are unknown to it.

    `queue` is asked for unless given.

    The accounts are asked only for what the queue no longer knows or calls over; a cluster that keeps none says
    of those as much as the queue does. Never raises for want of SLURM: where the queue can't be read, every job
    that the accounts, which another server keeps, do not call over is UNREACHABLE, with the reason.
    """
    if not job_ids:
        return {}
    queue = queue or ask_queue()
    if queue.problem is not None:
        return dict.fromkeys(job_ids, SchedulerState("UNREACHABLE", queue.problem)) | _ends_on_file(job_ids)
    lines = queue.lines
    limits = _limits(lines, job_ids)
    states = {i: _state(i, lines[i], limits) if i in lines else SchedulerState("GONE") for i in job_ids}
    over = [job_id for job_id, state in states.items() if state.state == "GONE" and is_slurm_id(job_id)]
    return states | _from_accounts(over, states)


def parse_squeue(text: str) -> dict[str, QueueLine]:
    """Lines by job id, from `id|state|partition|limit|reason|…`; what means nothing here is left out."""
    lines: dict[str, QueueLine] = {}
    for text_line in text.splitlines():
        parts = text_line.strip().split("|", _FIELDS - 1)
        if len(parts) < _LEAST_FIELDS:
            continue
        line = QueueLine(*(part.strip() for part in parts[1:]))
        for job_id in expand_tasks(parts[0].strip()):
            # While a job is requeued there can be two lines: the one that continues counts.
            if job_id not in lines or lines[job_id].word in END_WORDS:
                lines[job_id] = line
    return lines


def _limits(queue: Mapping[str, QueueLine], job_ids: Sequence[str]) -> dict[str, str]:
    """Time limit by partition, asked for only where a job waits because of it."""
    if not any(queue[i].reason == LIMITED_BY_PARTITION for i in job_ids if i in queue):
        return {}
    try:
        rows = (line.strip().partition("|") for line in command(_SINFO).splitlines())
    except (ExternalError, UsageError):
        return {}
    return {name: limit for name, _, limit in rows if limit}


def _state(job_id: str, line: QueueLine, limits: Mapping[str, str]) -> SchedulerState:
    reason = "" if line.reason in ("None", "(null)") else line.reason
    if line.word in END_WORDS:  # the reason mostly repeats the word (TimeLimit, NonZeroExitCode)
        return SchedulerState("GONE", f"{line.word} ({reason})" if reason else line.word)
    if waits(line):
        why = reason_in_words(job_id, reason, line.partition, line.limit, limits.get(line.partition))
        if line.held and not why:
            why = held_in_words(job_id)
        return SchedulerState("PENDING", why, line)
    return SchedulerState("RUNNING", "" if line.word == "RUNNING" else line.word, line)


def _ends_on_file(job_ids: Sequence[str]) -> dict[str, SchedulerState]:
    """The jobs among these that the accounts call over, where there is nobody else to ask."""
    ids = [job_id for job_id in job_ids if is_slurm_id(job_id)]
    try:
        accounts = _ask_accounts(ids, _SACCT_ALONE_S) if ids else {}
    except (ExternalError, UsageError):
        return {}
    ends = {job_id: accounts[job_id] for job_id in ids if job_id in accounts}
    return {job_id: state for job_id, state in ends.items() if state.reason.partition(" ")[0] in END_WORDS}


def _ask_accounts(job_ids: Sequence[str], timeout_s: float | None = None) -> dict[str, SchedulerState]:
    """What the accounts say, of whole arrays. Raises ExternalError and UsageError where they can't be asked."""
    wanted = dict.fromkeys(job_id.partition("_")[0] for job_id in job_ids)
    return parse_sacct(command([*_SACCT, f"--jobs={','.join(wanted)}"], timeout_s), me=person())


def _from_accounts(job_ids: Sequence[str], known: Mapping[str, SchedulerState]) -> dict[str, SchedulerState]:
    """How these jobs ended by the accounts; jobs of which they say nothing new are left out."""
    if not job_ids:
        return {}
    try:
        accounts = _ask_accounts(job_ids)
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
    """States by job id, from `id|user|state|exit code|exit code of its steps`; the last may be missing.

    The queue was asked for my jobs and did not know this one: accounts that call it alive are out of date.
    Another user's job is believed to be as they say.
    """
    states: dict[str, SchedulerState] = {}
    for line in text.splitlines():
        parts = line.strip().split("|")
        if len(parts) not in (4, 5) or not parts[2]:
            continue
        word = parts[2].split()[0].rstrip("+")
        if word in END_WORDS:
            state = SchedulerState("GONE", _end_in_words(parts[2], word, *parts[3:]))
        elif parts[1] == me:
            state = SchedulerState("GONE", f"the queue does not know it; the accounts still call it {word}")
        else:
            state = SchedulerState("PENDING" if word in _WAITS else "RUNNING")
        states |= dict.fromkeys(expand_tasks(parts[0]), state)  # a later line is a later attempt
    return states


def _end_in_words(text: str, word: str, code: str, of_steps: str = "") -> str:
    """`CANCELLED by anna`, `FAILED (exit code 3)`, `FAILED (its process was ended by SIGKILL)`: SLURM's word first.

    The code is the batch script's, to which srun hands on a signal as if it were an exit code; `of_steps` has it as it
    was.
    """
    if match := re.fullmatch(r"CANCELLED by (\d+)", text):
        return f"CANCELLED by {_name(int(match[1]))}"
    if word in _NO_CODE or code in ("", "0:0"):
        return word
    for of_process in (of_steps, code):
        if name := _signal_name(of_process.partition(":")[2]):
            return f"{word} (its process was ended by {name})"
    exit_code = code.partition(":")[0]
    above = _signal_name(str(int(exit_code) - _SIGNALLED)) if exit_code.isdecimal() else ""
    if above:
        return f"{word} (exit code {exit_code}, as a shell says {above})"
    if exit_code in _HANDED_ON:
        return f"{word} (exit code {exit_code}, as srun hands on {_signal_name(exit_code)})"
    return f"{word} (exit code {exit_code})"


def _signal_name(number: str) -> str:
    """`SIGKILL` for 9; empty for what is no signal."""
    try:
        return signal.Signals(int(number)).name
    except ValueError:
        return f"signal {number}" if number.isdecimal() and 0 < int(number) < signal.NSIG else ""


def _name(uid: int) -> str:
    name = user_name(uid)
    return f"user {name}" if name.isdecimal() else name


LIMITED_BY_PARTITION = "PartitionTimeLimit"

_RELEASE = "let it go with: scontrol release {job}"
_WORDS = {
    "Priority": "other jobs go first",
    "Resources": "it is next, as soon as there is room",
    "Dependency": "another job has to end first",
    "DependencyNeverSatisfied": "it will never start: the job it depends on did not end as asked; cancel it: "
    "tdmpc-lab cancel {job}",
    "BeginTime": "it has a time to begin; SLURM also waits some minutes before it starts a job again",
    "JobHeldUser": f"it is held; {_RELEASE}",
    "JobHeldAdmin": "an administrator holds it",
    "JobHoldMaxRequeue": "it was started again as often as this cluster allows, and is held; an administrator can let "
    "it go",
    "job requeued in held state": f"it was put back into the queue and is held; {_RELEASE}",
    "JobArrayTaskLimit": "its sweep runs as many jobs at once as it may",
    "PartitionDown": "the partition is down",
    "PartitionInactive": "the partition takes no jobs to run now",
    "PartitionNodeLimit": "it asks for more nodes than the partition allows",
    "ReqNodeNotAvail": "the nodes it needs are down, reserved or busy",
    "NodeDown": "a node it needs is down",
    "BadConstraints": "no node has what it asks for",
    "Reservation": "its reservation has not begun",
    "Licenses": "a licence it needs is in use",
    "InvalidAccount": "its account does not exist",
    "InvalidQOS": "its quality of service does not exist",
    "Cleaning": "SLURM still clears up after its last attempt",
    "Prolog": "its node is being prepared",
    "launch failed requeued held": f"it could not be launched and is held; {_RELEASE}",
}
_KINDS = (
    ("QOS", "a limit of its quality of service is reached"),
    ("Assoc", "a limit of your account is reached"),
    ("MaxJobs", "you have as many jobs running as you may"),
    ("Nodes required for job", "the nodes it needs are down, drained or reserved"),
)


def reason_in_words(job_id: str, reason: str, partition: str, asked: str, limit: str | None) -> str:
    """The reason that SLURM gives for a job that waits; `asked` is its time limit, `limit` the partition's.

    A reason that is not known here is passed on as it is.
    """
    if reason == LIMITED_BY_PARTITION:
        its = f"the time limit of partition {partition}" if limit is None else f"the partition's time limit is {limit}"
        return f"{its}, you asked for {asked}" if limit else f"it asks for more time than {its}"
    # ReqNodeNotAvail, UnavailableNodes:node7
    word = reason.split(",", maxsplit=1)[0].strip("() ")
    text = _WORDS.get(word) or next((text for start, text in _KINDS if word.startswith(start)), None)
    return f"{text.format(job=job_id)} ({reason})" if text else reason


def held_in_words(job_id: str) -> str:
    """What is to be said of a job in a held state for which SLURM gives no reason."""
    return f"it is held; {_RELEASE.format(job=job_id)}"
