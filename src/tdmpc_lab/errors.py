"""Every error this package raises on purpose.

    LabError                      exit code 1 unless said otherwise
    ├── UsageError                2  the command line is wrong; nothing was done
    │   └── NoJobError            2  an id is none of a job of this project
    ├── SpecError                 2  a spec is wrong; holds every Problem found in it
    ├── PreflightError            2  jobs would fail or never start; 3 when only things outside are at fault
    ├── EnvironmentSpecError      2  the environment can't be made, or its spaces are not supported
    ├── ConfigError               2  a value handed to a class of the trainer is not allowed
    ├── RecordError               1  a file of a job folder is missing or can't be read
    ├── SnapshotError             1  the code can't be kept as it is at submit
    ├── NoteError                 1  a note can't be written without touching a user's words
    ├── CheckpointError           1  a checkpoint is missing, torn or does not fit the spec
    ├── AttemptLostError          1  a later attempt of the same job owns its folder now
    ├── TrainingError             1  training can't continue
    │   └── NonFiniteError        1  NaN or Inf in a loss or in the planner
    └── ExternalError             3  SLURM, MLflow or a device is missing or unreachable

Library code raises these and never exits; only the command line turns them into exit codes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal


class LabError(Exception):
    """Base of all errors raised on purpose. The message says what, where, what is allowed, what to do."""

    exit_code: int = 1


class UsageError(LabError):
    """The command line is wrong; nothing was done."""

    exit_code = 2


class NoJobError(UsageError):
    """An id is none of a job of this project; the message says what else it is, as far as the project knows."""

    def __init__(self, message: str, job_id: str) -> None:
        super().__init__(message)
        self.job_id = job_id


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One thing wrong in a spec: where it stands, what was found, what is allowed there."""

    file: str
    line: int | None  # 1-based; None when the value comes from nowhere in particular
    key: str  # dotted, "" for the file as a whole
    message: str  # what was found and what is allowed
    hint: str = ""  # what to do, e.g. "did you mean 'agent.horizon'?"

    def __str__(self) -> str:
        where = self.file if self.line is None else f"{self.file}:{self.line}"
        key = f" {self.key}:" if self.key else ""
        hint = f" ({self.hint})" if self.hint else ""
        return f"{where}:{key} {self.message}{hint}"


class SpecError(LabError):
    """A spec is wrong. `problems` holds all of them, in the order of the file."""

    exit_code = 2

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(str(p) for p in self.problems))


Level = Literal["ok", "warning", "error"]


@dataclass(frozen=True)
class Finding:
    """Something that a check found: what, why it matters, what to do."""

    level: Level
    check: str  # what was looked at, in a word or two: environment, agent, memory, partition, ...
    what: str
    fix: str = ""
    why: str = ""
    where: str = ""  # file, line and key, where one of them is at fault
    key: str = ""  # of the spec, dotted, where one is at fault and its place is not known yet
    outside: bool = False  # the fault lies outside of spec and command line

    def __str__(self) -> str:
        where = f"{self.where}: " if self.where else ""
        why = f": {self.why}" if self.why else ""
        fix = f" ({self.fix})" if self.fix else ""
        return f"{where}{self.what}{why}{fix}"

    @property
    def exit_code(self) -> int:
        """Of a command that ends because of it."""
        return ExternalError.exit_code if self.outside else 2

    def as_dict(self) -> dict[str, str]:
        """For scripts."""
        return {name: str(getattr(self, name)) for name in ("level", "check", "what", "why", "fix", "where")}


class PreflightError(LabError):
    """Jobs would fail or never start. `problems` holds every finding that is an error."""

    def __init__(self, problems: Sequence[Finding]) -> None:
        self.problems = tuple(problems)
        self.exit_code = min(finding.exit_code for finding in problems)
        super().__init__("\n".join(str(finding) for finding in problems))


class EnvironmentSpecError(LabError):
    """The environment can't be made from its id and options, or its spaces are not supported.

    `key` is the key of the spec that is at fault, "" where none is known; `said` is what stands behind that key: the
    message without it, unless given. `option` is the entry of `env.options` at fault, where one is.
    """

    exit_code = 2

    def __init__(self, message: str, key: str = "", said: str | None = None, option: str = "") -> None:
        super().__init__(message)
        self.key, self.option = key, option
        self.said = message.removeprefix(f"{key} ") if said is None else said


class ConfigError(LabError):
    """A value handed to a class of the trainer is not allowed."""

    exit_code = 2


class RecordError(LabError):
    """A file of a job folder is missing, torn or can't be read."""


class SnapshotError(LabError):
    """The project's code can't be kept as it is now; the message is one line."""


class NoteError(LabError):
    """A note can't be written without touching what a user wrote."""


class CheckpointError(LabError):
    """A checkpoint is missing, torn, or does not fit the spec."""


class AttemptLostError(LabError):
    """A later attempt of the same job owns its folder now; this one must not write any more."""


class TrainingError(LabError):
    """Training can't continue."""


class NonFiniteError(TrainingError):
    """NaN or Inf in a loss or in the planner: names the step, the term and the last good checkpoint."""


class ExternalError(LabError):
    """Something outside is missing or unreachable; the message says what to do."""

    exit_code = 3
