"""What to do about the way a job ended, where that is known: the item `fix` of its note. Pure functions."""

from __future__ import annotations

from dataclasses import dataclass

from tdmpc_lab.jobs.record import JobRecord
from tdmpc_lab.jobs.state import JobStatus, State

# Errors of this package that say what to do themselves; what is behind a TrainingError may be anybody's code.
_SPEAKING = {
    *("CheckpointError", "ConfigError", "EnvironmentSpecError", "ExternalError", "LabError", "RecordError"),
    *("SpecError", "UsageError", "KeyboardInterrupt", "SystemExit"),
}
_TOLD = ("tdmpc-lab resume", "--steps")  # the cause says itself how it goes on


@dataclass(frozen=True)
class Ending:
    """How a job ended, as far as its files tell."""

    cause: str
    error: str
    """Name of the Python error, empty where there was none."""
    resume: str
    """The command that goes on from its last checkpoint; empty where there is no checkpoint."""
    again: str
    """The command that submits the same once more."""


def remedy(record: JobRecord, status: JobStatus, error: str, *, saved: bool, again: str) -> str:
    """What to do now, in one line; empty where nothing went wrong or the cause says it already.

    `error` is the name of the Python error that ended it, `saved` whether it has a checkpoint, `again` the command
    that makes the same job once more, as Markdown.
    """
    ended = status.state.ended or status.state is State.UNKNOWN
    if status.state is State.COMPLETED or not ended:
        return ""
    resume = f"`tdmpc-lab resume {record.id}`" if saved else ""
    ending = Ending(status.cause or "", error, resume, again)
    if any(words in ending.cause for words in _TOLD) and not _of_memory(ending):
        return ""
    return _of_memory(ending, record) or _of_training(ending) or _of_end(record, status, ending)


def _of_memory(ending: Ending, record: JobRecord | None = None) -> str:
    """Memory of the GPU, of the machine, of the job's allocation."""
    cause = ending.cause
    if ending.error == "OutOfMemoryError" or "CUDA out of memory" in cause:
        return (
            "the GPU's memory is full: a smaller train.batch_size, planner.samples, train.envs or agent.hidden_dim, "
            "train.replay_device=host, or a larger GPU; `tdmpc-lab check` shows what each takes"
        )
    if "more host memory than it asked for" in cause:
        had = record.resources.get("memory") if record is not None else None
        asked = f" (it had {had})" if had else ""
        return f"a larger slurm.memory{asked}, or a smaller train.replay_capacity{_then(ending)}"
    if ending.error == "MemoryError":
        return "the machine's memory is full: a smaller train.replay_capacity, or fewer jobs at once (--max-local)"
    return ""


def _of_training(ending: Ending) -> str:
    """NaN, and errors of Python."""
    if ending.error == "NonFiniteError":
        on = f"; from its last good checkpoint: {ending.resume[:-1]} agent.lr=…`" if ending.resume else ""
        return f"a smaller agent.lr or agent.grad_clip, or a smaller reward.scale{on}"
    if ending.error and ending.error not in _SPEAKING and "disk is full" not in ending.cause:
        return f"once the code is mended: {ending.resume or ending.again}"
    return ""


def _of_end(record: JobRecord, status: JobStatus, ending: Ending) -> str:
    """Ended from outside."""
    on = ending.resume or ending.again
    if status.state is State.TIMEOUT:
        return f"a longer slurm.time, or a larger slurm.max_requeues; then {on}"
    if "its node failed" in ending.cause or "its node did not come up" in ending.cause:
        off = f"; to keep off that node: slurm.extra.exclude={status.node}" if status.node else ""
        return f"{on}{off}"
    if status.state is State.CANCELLED:
        return f"if it was a mistake: {on}"
    if "killed from outside" in ending.cause or status.state is State.UNKNOWN:
        return f"the end of `jobs/{record.id}/log.err` may say why; then {on}"
    return ""


def _then(ending: Ending) -> str:
    return f"; then {ending.resume or ending.again}"
