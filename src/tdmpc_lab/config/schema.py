"""The spec: one frozen dataclass per section, standard library only, so that every layer may use them.

The defaults are the reference agent (latent 1024, hidden 512 × 3, 5 heads, horizon 9, 512 samples). Ranges
stand beside the type (`tdmpc_lab.config.constraints`); rules that tie two keys together stand in
`tdmpc_lab.config.rules`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from typing import Annotated, Any, ClassVar, Literal

from tdmpc_lab.config.constraints import (
    PYDANTIC_CONFIG,
    AfterJob,
    AgentSource,
    Bind,
    Bounds,
    Constraint,
    Device,
    Duration,
    EnvId,
    FilePath,
    Fraction,
    Gpus,
    MailAddress,
    MailType,
    Memory,
    Name,
    NodeNames,
    OneLine,
    OpponentName,
    OpponentWeights,
    Partition,
    PositiveInt,
    SbatchOption,
    ShellLine,
    ShellWord,
    WordOption,
)

Precision = Literal["auto", "float32", "bfloat16", "float16"]
PolicyHead = Literal["squashed_gaussian", "clipped_gaussian"]
TimeLimit = Literal["terminated", "truncated"]
LintRule = Literal[
    "temporal-weight", "run-time", "changes", "episode-length", "reward-range", "gpu-memory", "memory", "partition-time"
]
KernelWish = Literal["auto", "torch", "native"]
Entropy = Literal["gaussian", "squashed"]
PolicyPrior = Literal["value", "cloned", "planner"]
ReplayDraw = Literal["uniform", "episode"]
GraphWish = Literal["auto", "always", "never"]


@dataclass(frozen=True, kw_only=True)
class SelfPlayConfig:
    """The pool of the agent's own past selves, for the opponent `self`."""

    __pydantic_config__: ClassVar[dict[str, Any]] = PYDANTIC_CONFIG

    from_step: Annotated[int, Bounds(ge=0)] = 50_000
    """Environment step of the first copy. Until there is one, the other opponents play, `weak` if there is no other."""
    every: PositiveInt = 25_000
    """Environment steps between two copies."""
    size: PositiveInt = 10
    """Copies in the pool; the oldest leaves. Each episode draws one of them, all with the same chance."""


@dataclass(frozen=True, kw_only=True)
class EnvConfig:
    """Which environment, and how it is made."""

    __pydantic_config__: ClassVar[dict[str, Any]] = PYDANTIC_CONFIG

    id: EnvId
    """Any gymnasium id, also `module:id`, which imports the module first; `hockey`; `dmc:walker-walk` and the other
    tasks of the DeepMind Control Suite."""
    options: dict[str, Any] = field(default_factory=dict)
    """Keyword arguments for the environment's constructor."""
    max_episode_steps: PositiveInt | None = None
    """Time limit in steps (the end is a truncation). Default: the environment's own."""
    opponent: OpponentName | PositiveInt | OpponentWeights | None = None
    """Laser hockey: who plays against the agent: `weak`, `strong`, `random`, `none`, `self`, a job id or a
    checkpoint's path, or several with weights, drawn per episode: `{weak: 0.55, strong: 0.45}`. Default: weak."""
    time_limit: TimeLimit | None = None
    """Laser hockey: whether a game that runs out of time is `terminated` (nothing comes after it, the default) or
    `truncated` (its last state keeps its value)."""
    self_play: SelfPlayConfig | None = None
    """Laser hockey: the pool behind the opponent `self`."""


@dataclass(frozen=True, kw_only=True)
class Ramp:
    """A number that may change over training: `start` for `hold` episodes, then in a straight line to `final` within
    `ramp` episodes. A bare number stays as it is: `5` is `{start: 5, final: null}`."""

    __pydantic_config__: ClassVar[dict[str, Any]] = PYDANTIC_CONFIG
    bare_number: ClassVar[tuple[str, ...]] = ("start", "final")

    start: float
    """Value at the beginning."""
    final: float | None = None
    """Value at the end. Default: as at the start."""


@dataclass(frozen=True, kw_only=True)
class FractionRamp:
    """As `Ramp`, for a number from 0 to 1."""

    __pydantic_config__: ClassVar[dict[str, Any]] = PYDANTIC_CONFIG
    bare_number: ClassVar[tuple[str, ...]] = ("start", "final")

    start: Fraction
    """Value at the beginning."""
    final: Fraction | None = None
    """Value at the end. Default: as at the start."""


@dataclass(frozen=True, kw_only=True)
class ShapingConfig:
    """Laser hockey: what is added to the reward of every step, weight × term of the environment's info."""

    __pydantic_config__: ClassVar[dict[str, Any]] = PYDANTIC_CONFIG

    closeness: Ramp = field(default_factory=lambda: Ramp(start=20.0, final=1.5))
    """Weight of `reward_closeness_to_puck` (negative, while the puck lies in the agent's half)."""
    touch: Ramp = field(default_factory=lambda: Ramp(start=15.0, final=1.0))
    """Weight of `reward_touch_puck` (1 in the step in which the agent catches the puck)."""
    direction: Ramp = field(default_factory=lambda: Ramp(start=0.0, final=2.0))
    """Weight of `reward_puck_direction` (the puck's speed towards the opponent's goal)."""
    hold: Annotated[int, Bounds(ge=0)] = 150
    """Training episodes for which the weights keep their start values."""
    ramp: Annotated[int, Bounds(ge=0)] = 150
    """Training episodes within which they then reach their final values."""


@dataclass(frozen=True, kw_only=True)
class BackpropConfig:
    """Laser hockey: a bonus that runs back through a won episode of T steps before it enters the replay:
    r_t += bonus · discount^((T − 2) − t) for t = 0 … T − 2. The last step and all other episodes stay as they are."""

    __pydantic_config__: ClassVar[dict[str, Any]] = PYDANTIC_CONFIG

    bonus: Ramp = field(default_factory=lambda: Ramp(start=10.0))
    """Added to the last step but one."""
    discount: FractionRamp = field(default_factory=lambda: FractionRamp(start=0.92))
    """Factor per step further back. Not the agent's discount."""
    hold: Annotated[int, Bounds(ge=0)] = 0
    """Training episodes for which bonus and discount keep their start values."""
    ramp: Annotated[int, Bounds(ge=0)] = 0
    """Training episodes within which they then reach their final values; 0: at once."""


@dataclass(frozen=True, kw_only=True)
class RewardConfig:
    """What is done to the reward before the agent learns from it. Evaluation always reports the raw one."""

    __pydantic_config__: ClassVar[dict[str, Any]] = PYDANTIC_CONFIG

    scale: Annotated[float, Bounds(gt=0.0)] = 1.0
    """Every reward, with what shaping and backprop added, is multiplied by this before it enters the replay."""
    shaping: ShapingConfig | None = None
    """Reward shaping; `on` for the defaults."""
    backprop: BackpropConfig | None = None
    """Reward backprop; `on` for the defaults."""


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
    encoder_norm: bool = False
    """LayerNorm before the encoder's SimNorm: the published encoder has it, the reference print-out has not."""
    termination: bool = True
    """Whether there is a termination head. `off`: nothing is foreseen to end, as in the published DMControl agent; a
    target still stops where an episode really terminated."""
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
    policy_prior: PolicyPrior = "value"
    """What the policy learns from beside the values: nothing (`value`); the actions that were taken (`cloned`: mean
    squared distance of its sample, as in Newt); the planner's distribution of the first action (`planner`: its
    log-density, as in TD-M(PC)²). Random steps are left out."""
    horizon: PositiveInt = 9
    """Steps planned ahead, and steps of a training sub-sequence."""
    discount: Annotated[float, Bounds(ge=0.0, lt=1.0)] | None = None
    """γ per step. Default: clip((T/5 − 1)/(T/5), 0.95, 0.995) for an episode of T steps."""
    rho: Annotated[float, Bounds(gt=0.0, le=1.0)] = 0.5
    """Temporal weight: step t of a sub-sequence counts ρ^t in the losses."""
    td_steps: Annotated[int, Bounds(ge=1, le=5)] = 1
    """Rewards summed in a TD target before the value is bootstrapped, fewer where the episode ends."""
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
    """Weight of the policy's entropy in its loss; 0 leaves it out."""
    entropy: Entropy = "gaussian"
    """Whose entropy: of the action after the head has bounded it (`squashed`, as in the paper), or that of the Gaussian
    before it times the number of entries (`gaussian`, as in the present official code), which grows with the spread
    without limit."""
    precision: Precision = "auto"
    """Type of the matrix products; sums, weights and all values are float32. `auto`: on CUDA `bfloat16`, or `float16`
    where the GPU has none; on a CPU `bfloat16` where a product is timed to be faster in it, else `float32`. With
    `float16` updates stay in float32."""
    kernels: KernelWish = "auto"
    """What plans and updates on a CPU: `native` kernels with bfloat16 products, compiled on first use, or `torch`.
    `auto` is native where the processor has such products (AMX, AVX-512) and `precision` allows them. Where native
    kernels can't be had torch does it, whatever is set here; the job's log says which and why."""
    cuda_graphs: GraphWish = "auto"
    """Whether plans and updates on a GPU are captured in CUDA graphs. `auto`: where a test in a process of its own
    finds that they give the same as without; the job's log says so. No effect on a CPU."""


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
    pessimism: Annotated[float, Bounds(ge=0.0)] = 0.0
    """Standard deviations over the Q heads by which the value at a plan's end is lowered."""


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
    """CPU threads. Default: the CPUs this job may use: what SLURM gave it, or of local jobs side by side its share."""
    batch_size: PositiveInt = 256
    """Sub-sequences per update."""
    updates_per_step: Annotated[float, Bounds(gt=0.0)] = 1.0
    """Updates per environment step; fractions are saved up."""
    seed_steps: Annotated[int, Bounds(ge=0)] | None = None
    """Steps with random actions before the first update; with `start_from` that agent plays them. Default: max(1000,
    5 · episode length)."""
    replay_capacity: PositiveInt = 1_000_000
    """Steps the replay holds; the oldest episodes are overwritten first."""
    replay_device: Literal["auto", "host"] = "auto"
    """Where the replay lies: `auto` is the training device if it fits there, else host memory."""
    replay_draw: ReplayDraw = "uniform"
    """How a sub-sequence is drawn: `uniform` over all there are, or an `episode` uniformly and then a start in it, as
    in the official code: then steps of short episodes are seen more often."""
    past_ends: bool = False
    """Whether sub-sequences may run over an episode's end, masked behind it: then ends are learned at every depth, and
    from episodes shorter than the horizon too."""
    mirror: bool = False
    """Whether each sub-sequence of a batch is mirrored with probability ½, for environments that declare a mirror
    symmetry (laser hockey: up and down)."""
    start_from: AgentSource | PositiveInt | None = None
    """Whose networks, target, optimizers and running scale the training begins with, at step 0 with an empty replay: a
    job id (its newest checkpoint), `ID@STEP`, a checkpoint's path or an exported folder (`export --training`; without
    that its networks and target alone). The networks' sizes have to be the same. It is copied at submit, and a rerun
    takes that copy."""
    log_every: PositiveInt = 500
    """Steps between two rows of losses in the metrics."""
    checkpoint_every: PositiveInt = 25_000
    """Steps between two checkpoints; one more is written at the end."""
    env_timeout: Annotated[int, Bounds(ge=0)] = 600
    """Seconds that a step or reset of an environment may take before the job fails with its name; 0: no limit."""


@dataclass(frozen=True, kw_only=True)
class EvalConfig:
    """Periodic evaluation in separate environments with seeds of their own; also once at the end."""

    __pydantic_config__: ClassVar[dict[str, Any]] = PYDANTIC_CONFIG

    every: PositiveInt = 10_000
    """Environment steps between two evaluations."""
    episodes: PositiveInt = 10
    """Episodes per evaluation; laser hockey: per opponent, the agent starts in half of them."""
    opponents: tuple[OpponentName, ...] = ()
    """Laser hockey: who is played against. Default: everybody that `env.opponent` and the phases name, but `self`."""
    video_every: PositiveInt | None = None
    """Environment steps between two videos of an evaluation episode. Default: no videos."""


@dataclass(frozen=True, kw_only=True)
class MailConfig:
    """Mails that SLURM sends about a job."""

    __pydantic_config__: ClassVar[dict[str, Any]] = PYDANTIC_CONFIG

    types: tuple[MailType, ...] = ("END", "FAIL")
    """What a mail is sent about, in SLURM's words: `[END, FAIL]`."""
    user: MailAddress | None = None
    """Who gets it. Default: the user who submits, at the cluster's mail server."""


@dataclass(frozen=True, kw_only=True)
class ContainerConfig:
    """The image whose Python runs the job. It has to hold this project's dependencies, submitit among them."""

    __pydantic_config__: ClassVar[dict[str, Any]] = PYDANTIC_CONFIG

    image: FilePath
    """The image file, relative to the project's folder; `~` and `$VARIABLES` are filled in at submit."""
    bind: tuple[Bind, ...] = ()
    """Folders to be seen inside, `DIR` or `DIR:DIR`; the project's own is always one of them."""
    runtime: Literal["auto", "apptainer", "singularity"] = "auto"
    """The program that starts it; `auto` takes the one that the compute node has."""
    nv: bool = True
    """Hand the node's NVIDIA driver in (`--nv`)."""
    python: ShellWord = "python"
    """The Python inside."""


@dataclass(frozen=True, kw_only=True)
class SlurmConfig:
    """What a job asks SLURM for. Read by `--cluster slurm` only.

    Values come from the profile (`clusters.yaml`), then the spec, then the command line; later ones win.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = PYDANTIC_CONFIG

    profile: Name | None = None
    """Profile in `clusters.yaml` that gives what stands nowhere else. Default: the one named `default`, if any."""
    partition: Partition | None = None
    """Partition; default: the cluster's own."""
    gpus: PositiveInt | Gpus | None = None
    """GPUs per job, as a number or with a type: `2`, `2080ti:1`."""
    cpus: PositiveInt = 4
    """CPUs per job. The threads of OpenMP, MKL and OpenBLAS are set to as many."""
    memory: Memory | None = None
    """Memory per job, as SLURM writes it: `16G`, `800M`. Default: 16G, unless `extra` has mem-per-cpu or -gpu."""
    time: Annotated[timedelta, Duration()] = timedelta(hours=24)
    """Time limit: `HH:MM:SS` or `D-HH:MM:SS`."""
    max_requeues: Annotated[int, Bounds(ge=0)] = 100
    """Times that a job which reaches its time limit is started again and continues; preemptions do not count."""
    account: WordOption | None = None
    """Account that the job is charged to."""
    qos: WordOption | None = None
    """Quality of service."""
    constraint: Constraint | None = None
    """Features that the node must have."""
    exclude: NodeNames | None = None
    """Nodes that are not to be used."""
    nodelist: NodeNames | None = None
    """Nodes that have to be used; for one node, its name."""
    mail: MailConfig | None = None
    """Mails about the job; `off` for none."""
    after: tuple[AfterJob, ...] = ()
    """Jobs of this project to wait for: `afterok:ID` (the default kind) or `afterany:ID`."""
    container: ContainerConfig | None = None
    """Run in a container; `off` for the Python that submits."""
    array_limit: PositiveInt | None = None
    """Jobs of one sweep that may run at once. Default: as many as SLURM has places for."""
    setup: tuple[ShellLine, ...] = ()
    """Shell lines run before the job's Python starts, in a subshell of the batch script."""
    extra: dict[SbatchOption, ShellLine | int | bool] = field(default_factory=dict)
    """Any other sbatch option, by its long name: `{nice: 100, exclusive: true}`."""


@dataclass(frozen=True, kw_only=True)
class LintConfig:
    """Advice on this config at submit."""

    __pydantic_config__: ClassVar[dict[str, Any]] = PYDANTIC_CONFIG

    silent: tuple[LintRule, ...] = ()
    """Rules that say nothing of it, as `--no-lint` for one submit: `[run-time, changes]`."""


@dataclass(frozen=True, kw_only=True)
class MlflowConfig:
    """What a job's MLflow run gets beside its values."""

    __pydantic_config__: ClassVar[dict[str, Any]] = PYDANTIC_CONFIG

    checkpoint: bool = False
    """Its last checkpoint, at its end: enough for `eval` and as an opponent, not for going on (no replay in it)."""


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
    phases: tuple[dict[str, Any], ...] = ()
    """A curriculum: one after another, each `{steps: N, env: {…}, reward: {…}}` with what it changes in these two
    sections; the last one may leave out `steps` and lasts to the end. See `tdmpc_lab.config.phases`."""
    agent: AgentConfig = field(default_factory=AgentConfig)
    planner: PlannerConfig = field(default_factory=PlannerConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    eval: EvalConfig | None = field(default_factory=EvalConfig)
    """`off` for no evaluation."""
    slurm: SlurmConfig = field(default_factory=SlurmConfig)
    lint: LintConfig = field(default_factory=LintConfig)
    mlflow: MlflowConfig = field(default_factory=MlflowConfig)
