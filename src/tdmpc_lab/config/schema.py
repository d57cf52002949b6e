"""The spec: one frozen dataclass per section, standard library only, so that every layer may use them.

The defaults are the reference agent (latent 1024, hidden 512 × 3, 5 heads, horizon 9, 512 samples). Ranges
stand in `Bounds`, `Text` or `Duration` beside the type; rules that tie two keys together stand in
`tdmpc_lab.config.rules`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from typing import Annotated, Any, ClassVar, Final, Literal

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

PolicyHead = Literal["squashed_gaussian", "clipped_gaussian"]


@dataclass(frozen=True, kw_only=True)
class EnvConfig:
    """Which environment, and how it is made."""

    __pydantic_config__: ClassVar[dict[str, Any]] = PYDANTIC_CONFIG

    id: EnvId
    """Any gymnasium id, also `module:id`, which imports the module first."""
    options: dict[str, Any] = field(default_factory=dict)
    """Keyword arguments for the environment's constructor."""
    max_episode_steps: PositiveInt | None = None
    """Time limit in steps (the end is a truncation). Default: the environment's own."""


@dataclass(frozen=True, kw_only=True)
class RewardConfig:
    """What is done to the reward before the agent learns from it. Evaluation always reports the raw one."""

    __pydantic_config__: ClassVar[dict[str, Any]] = PYDANTIC_CONFIG

    scale: Annotated[float, Bounds(gt=0.0)] = 1.0
    """Every reward is multiplied by this before it enters the replay."""


@dataclass(frozen=True, kw_only=True)
class AgentConfig:
    """World model, policy prior and update rule (TD-MPC2, arXiv 2310.16828)."""

    __pydantic_config__: ClassVar[dict[str, Any]] = PYDANTIC_CONFIG

    latent_dim: PositiveInt = 1024
    """Width of the latent z; a multiple of `simnorm_dim`."""
    hidden_dim: PositiveInt = 512
    """Width of every hidden layer of encoder, dynamics, reward, Q and policy."""
    hidden_layers: PositiveInt = 3
    """Hidden layers (Linear → LayerNorm → Mish) of each of them."""
    simnorm_dim: Annotated[int, Bounds(ge=2)] = 8
    """Group size of the softmax that normalises the latent (SimNorm)."""
    termination_dim: PositiveInt = 256
    """Width of the two hidden layers of the termination head."""
    q_heads: Annotated[int, Bounds(ge=2)] = 5
    """Heads of the Q ensemble; targets use the minimum of two drawn at random."""
    bins: Annotated[int, Bounds(ge=3)] = 101
    """Bins of the discrete regression of reward and value."""
    bin_low: float = -10.0
    """Lowest bin, in symlog space."""
    bin_high: float = 10.0
    """Highest bin, in symlog space."""
    dropout: Annotated[float, Bounds(ge=0.0, lt=1.0)] = 0.01
    """Dropout in the first layer of every Q head, while training."""
    policy: PolicyHead = "squashed_gaussian"
    """Policy head: `squashed_gaussian` (tanh of a Gaussian sample) or `clipped_gaussian` (tanh on the mean,
    noise after it, clamped)."""
    log_std_min: float = -10.0
    """Lower end of the policy's log standard deviation."""
    log_std_max: float = 2.0
    """Upper end of the policy's log standard deviation."""
    horizon: PositiveInt = 9
    """Steps planned ahead, and steps of a training sub-sequence."""
    discount: Annotated[float, Bounds(ge=0.0, lt=1.0)] | None = None
    """γ per step. Default: clip((T/5 − 1)/(T/5), 0.95, 0.995) for an episode of T steps."""
    rho: Annotated[float, Bounds(gt=0.0, le=1.0)] = 0.5
    """Temporal weight: step t of a sub-sequence counts ρ^t in the losses."""
    tau: Annotated[float, Bounds(gt=0.0, le=1.0)] = 0.01
    """Share by which the target Q ensemble moves towards the online one per update."""
    scale_tau: Annotated[float, Bounds(gt=0.0, le=1.0)] = 0.01
    """Share by which the running scale of Q moves per update."""
    lr: Annotated[float, Bounds(gt=0.0)] = 3e-4
    """Learning rate of both Adam optimizers."""
    encoder_lr_scale: Annotated[float, Bounds(gt=0.0)] = 0.3
    """The encoder's learning rate is `lr` times this."""
    grad_clip: Annotated[float, Bounds(gt=0.0)] = 20.0
    """Global gradient norm is clipped here, for world model and policy each."""
    consistency_weight: Annotated[float, Bounds(ge=0.0)] = 20.0
    """Weight of the latent consistency loss."""
    reward_weight: Annotated[float, Bounds(ge=0.0)] = 0.1
    """Weight of the reward loss."""
    value_weight: Annotated[float, Bounds(ge=0.0)] = 0.1
    """Weight of the value loss."""
    termination_weight: Annotated[float, Bounds(ge=0.0)] = 1.0
    """Weight of the termination loss."""
    entropy_weight: Annotated[float, Bounds(ge=0.0)] = 1e-4
    """Weight of the scaled entropy in the policy loss."""


@dataclass(frozen=True, kw_only=True)
class PlannerConfig:
    """MPPI (TD-MPC2, section 3.3). The horizon is `agent.horizon`."""

    __pydantic_config__: ClassVar[dict[str, Any]] = PYDANTIC_CONFIG

    samples: PositiveInt = 512
    """Action sequences valued per iteration, policy trajectories included."""
    iterations: PositiveInt = 6
    """Refinements of the sampling distribution; actions of 20 or more dimensions get two more."""
    elites: PositiveInt = 64
    """Best sequences that the next distribution is fitted to; at most `samples`."""
    policy_trajectories: Annotated[int, Bounds(ge=0)] = 24
    """Sequences proposed by the policy prior; fewer than `samples`."""
    temperature: Annotated[float, Bounds(gt=0.0)] = 0.5
    """Elite weights are ∝ exp(temperature · (value − best value))."""
    std_min: Annotated[float, Bounds(gt=0.0)] = 0.05
    """Lower clamp of the sampling standard deviation."""
    std_max: Annotated[float, Bounds(gt=0.0)] = 2.0
    """Upper clamp of the sampling standard deviation, and its start value."""


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """The training loop. A step is one environment step; with several environments all their steps count."""

    __pydantic_config__: ClassVar[dict[str, Any]] = PYDANTIC_CONFIG

    steps: PositiveInt = 500_000
    """Environment steps in all, over all environments."""
    envs: PositiveInt = 1
    """Copies of the environment stepped side by side; all are planned for in one batched call."""
    seed: Annotated[int, Bounds(ge=0, lt=2**31)] = 1
    """Fixes weights, exploration, environments and sampling."""
    device: Device = "auto"
    """`auto` (CUDA when there is one), `cpu`, `cuda` or `cuda:N`."""
    threads: PositiveInt | None = None
    """CPU threads for torch. Default: the CPUs this process may use."""
    batch_size: PositiveInt = 256
    """Sub-sequences per update."""
    updates_per_step: Annotated[float, Bounds(gt=0.0)] = 1.0
    """Updates per environment step; fractions are saved up."""
    seed_steps: Annotated[int, Bounds(ge=0)] | None = None
    """Steps with random actions before the first update. Default: max(1000, 5 · episode length)."""
    replay_capacity: PositiveInt = 1_000_000
    """Steps the replay holds; the oldest episodes are overwritten first."""
    replay_device: Literal["auto", "host"] = "auto"
    """Where the replay lies: `auto` is the training device if it fits there, else host memory."""
    log_every: PositiveInt = 500
    """Steps between two rows of losses in the metrics."""
    checkpoint_every: PositiveInt = 25_000
    """Steps between two checkpoints; one more is written at the end."""


@dataclass(frozen=True, kw_only=True)
class EvalConfig:
    """Periodic evaluation in separate environments with seeds of their own; also once at the end."""

    __pydantic_config__: ClassVar[dict[str, Any]] = PYDANTIC_CONFIG

    every: PositiveInt = 10_000
    """Environment steps between two evaluations."""
    episodes: PositiveInt = 10
    """Episodes per evaluation."""


@dataclass(frozen=True, kw_only=True)
class SlurmConfig:
    """What a job asks SLURM for. Read by `--cluster slurm` only."""

    __pydantic_config__: ClassVar[dict[str, Any]] = PYDANTIC_CONFIG

    partition: Partition | None = None
    """Partition; default: the cluster's own."""
    gpus: PositiveInt | Gpus | None = None
    """GPUs per job, as a number or with a type: `2`, `2080ti:1`."""
    cpus: PositiveInt = 4
    """CPUs per job."""
    memory: Memory = "16G"
    """Memory per job, as SLURM writes it: `16G`, `800M`."""
    time: Annotated[timedelta, Duration()] = timedelta(hours=24)
    """Time limit: `HH:MM:SS` or `D-HH:MM:SS`."""
    setup: tuple[ShellLine, ...] = ()
    """Shell lines run before the job's Python starts."""
    extra: dict[SbatchOption, ShellLine | int | bool] = field(default_factory=dict)
    """Any other sbatch option, by its long name: `{qos: high, exclude: node7}`."""


@dataclass(frozen=True, kw_only=True)
class Spec:
    """One experiment, as validated. `name` defaults to the file's stem."""

    __pydantic_config__: ClassVar[dict[str, Any]] = PYDANTIC_CONFIG

    name: Name
    """Experiment name: letters, digits, `_`, `-` and `.`."""
    about: OneLine = ""
    """One line: what this job is. Opens the note, shown in `status`."""
    why: OneLine = ""
    """The question this job answers."""
    compare_to: Name | None = None
    """Experiment name or job id that the difference is shown against."""
    env: EnvConfig
    reward: RewardConfig = field(default_factory=RewardConfig)
    agent: AgentConfig = field(default_factory=AgentConfig)
    planner: PlannerConfig = field(default_factory=PlannerConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    eval: EvalConfig | None = field(default_factory=EvalConfig)
    """`off` for no evaluation."""
    slurm: SlurmConfig = field(default_factory=SlurmConfig)
