"""What a key of a spec takes: limits and forms that stand beside its type, and the types made of them.

Standard library only. pydantic, the error messages and the JSON schema all read the same annotations.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal

from tdmpc_lab.config.durations import checked_duration

# Read by pydantic, which the loader alone imports: every class needs it, nested ones do not inherit.
PYDANTIC_CONFIG: Final[dict[str, Any]] = {
    "strict": True,
    "extra": "forbid",
    "allow_inf_nan": False,
    "use_attribute_docstrings": True,
}


@dataclass(frozen=True)
class Bounds:
    """The range of a number. Read by the loader's validator, the error messages and the JSON schema."""

    ge: float | None = None
    gt: float | None = None
    le: float | None = None
    lt: float | None = None

    def limits(self) -> dict[str, float]:
        """The limits that are set, by name."""
        named = {"ge": self.ge, "gt": self.gt, "le": self.le, "lt": self.lt}
        return {name: value for name, value in named.items() if value is not None}

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:
        """Hook of pydantic, which only the loader imports: put the limits into the number's core schema."""
        return {**handler(source), **self.limits()}


@dataclass(frozen=True)
class Text:
    """The form of a text. The pattern means the same to Python, to pydantic and in a JSON schema."""

    pattern: str
    words: str
    """What the pattern allows, for error messages."""
    max_length: int | None = None

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:
        """Hook of pydantic: put pattern and length into the text's core schema."""
        longest = {} if self.max_length is None else {"max_length": self.max_length}
        return {**handler(source), "pattern": self.pattern, **longest}


@dataclass(frozen=True)
class Duration:
    """A time span written as `HH:MM:SS` or `D-HH:MM:SS`, more than zero."""

    words: str = "a duration HH:MM:SS or D-HH:MM:SS, more than zero"

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:
        """Hook of pydantic: read the text before the type is checked."""
        function = {"type": "no-info", "function": checked_duration}
        return {"type": "function-before", "function": function, "schema": handler(source)}

    def __get_pydantic_json_schema__(self, schema: Any, handler: Any) -> Any:
        """Hook of pydantic: the text's form for the JSON schema."""
        return {"type": "string", "pattern": r"^([0-9]+-)?[0-9]+:[0-5][0-9]:[0-5][0-9]$"}


@dataclass(frozen=True)
class Whole:
    """A mapping that is one value: a file that extends another replaces it as a whole, key by key makes no sense."""

    reason: str
    """Why, for the message about a single key of it on the command line."""

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:
        """Hook of pydantic: says nothing about the value."""
        return handler(source)


PositiveInt = Annotated[int, Bounds(ge=1)]
Fraction = Annotated[float, Bounds(ge=0.0, le=1.0)]

_CONTROL = r"\x00-\x1f\x7f-\x9f\u2028\u2029"
_NAME_PATTERN = r"^[A-Za-z0-9_][A-Za-z0-9_.-]*$"

Name = Annotated[
    str, Text(_NAME_PATTERN, "a name of letters, digits, _ - . (not - or . first), at most 80 characters", 80)
]
OneLine = Annotated[str, Text(rf"^[^{_CONTROL}]*$", "one line of text, at most 500 characters", 500)]
ShellLine = Annotated[str, Text(rf"^([^{_CONTROL}]|\t)*$", "one line of text")]
EnvId = Annotated[str, Text(rf"^[^\s{_CONTROL}]+$", "an environment id such as Pendulum-v1 or module:Name-v0")]
Device = Annotated[str, Text(r"^(auto|cpu|cuda(:[0-9]{1,3})?)$", "auto, cpu, cuda or cuda:N")]
Partition = Annotated[str, Text(r"^[A-Za-z0-9_.,-]+$", "the name of a partition, or several with commas")]
Gpus = Annotated[str, Text(r"^([A-Za-z0-9_.-]+:)?[1-9][0-9]{0,3}$", "a type and a number such as 2080ti:1")]
Memory = Annotated[str, Text(r"^[1-9][0-9]{0,8}[KMGTkmgt]$", "a size such as 16G, 800M or 1T")]
SbatchOption = Annotated[
    str, Text(r"^[A-Za-z0-9][A-Za-z0-9_-]*$", "a long option of sbatch without its dashes, such as qos")
]

OpponentName = Annotated[
    str,
    Text(
        rf"^[^\s{_CONTROL}]+$",
        "an opponent: weak, strong, random, none, self, a job id or the path of a checkpoint (with :plan or :policy)",
        300,
    ),
]
AgentSource = Annotated[
    str,
    Text(
        rf"^[^\s{_CONTROL}]+$",
        "an agent: a job id, ID@STEP for its checkpoint of that step, the path of a checkpoint or of a folder with one",
        300,
    ),
]
OpponentWeight = Annotated[float, Bounds(ge=0.0)]
OpponentWeights = Annotated[
    dict[OpponentName, OpponentWeight], Whole("the weights of a mixture are one value: write all of them")
]

WordOption = Annotated[str, Text(r"^[A-Za-z0-9_.,@+:-]+$", "a name as the cluster spells it, without spaces")]
Constraint = Annotated[str, Text(rf"^[^\s{_CONTROL}]+$", "features of nodes, such as a100|h100, without spaces")]
NodeNames = Annotated[str, Text(r"^[A-Za-z0-9_.,\[\]-]+$", "node names, such as node7 or node[1-4],node9")]
MailAddress = Annotated[str, Text(rf"^[^\s{_CONTROL}]+$", "a mail address or a user's name")]
MailType = Literal[
    "BEGIN",
    "END",
    "FAIL",
    "REQUEUE",
    "INVALID_DEPEND",
    "TIME_LIMIT",
    "TIME_LIMIT_90",
    "TIME_LIMIT_80",
    "TIME_LIMIT_50",
    "ARRAY_TASKS",
    "ALL",
]
AfterJob = Annotated[
    str,
    Text(
        r"^((afterok|afterany):)?[0-9]{1,12}(_[0-9]{1,9})?$",
        "a job id, or afterok:ID (when it has finished well), or afterany:ID (when it is over)",
    ),
]
FilePath = Annotated[str, Text(rf"^[^{_CONTROL}]+$", "a path, or a URI such as docker://…")]
Bind = Annotated[str, Text(rf"^[^\s,:{_CONTROL}]+(:[^\s,:{_CONTROL}]+(:(ro|rw))?)?$", "DIR, DIR:DIR or DIR:DIR:ro")]
ShellWord = Annotated[str, Text(rf"^[^\s{_CONTROL}]+$", "one word, without spaces")]
