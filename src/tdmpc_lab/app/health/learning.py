"""What looks wrong in a job's own figures, in words, and which setting to look at: `doctor JOB`.

Thresholds are rules of thumb, explained one by one in docs/diagnostics.md.
"""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tdmpc_lab.config.loader import load_resolved
from tdmpc_lab.config.schema import Spec
from tdmpc_lab.errors import Finding, UsageError
from tdmpc_lab.files import read_jsonl
from tdmpc_lab.jobs.events import read_events
from tdmpc_lab.jobs.metrics import Row, as_float, as_int
from tdmpc_lab.jobs.paths import JobPaths

MODEL_ERROR = 0.5
"""Of the latent's variance, one step ahead: the model hardly predicts better than the mean."""
BLOWN_UP = 10.0
"""The same, when no training makes up for it: latents have collapsed or grown beyond all bounds."""
GROWTH = 10.0
"""Model error at the end of the horizon over that of one step."""
BIAS = 1.0
"""Overestimation in standard deviations of the returns."""
LAG = 3.0
"""The same for underestimation: values follow an agent that gets better, and the lower of two heads is cautious."""
SATURATION = 0.8
CLIPPED = 0.001
RECALL = PRECISION = 0.5
NEVER = 0.1
HELD = 0.1
"""Share of all steps so far that the replay still holds; less is little to learn from."""
ENOUGH_HELD = 50_000
"""Steps that are enough, whatever share they are."""
UPDATES = 0.1
"""Updates per step."""
WORSE = 0.5
"""Standard deviations of an evaluation's returns by which planning is worse than the policy alone."""
KEPT = 0.5
"""Share of what planning gains over random play that the policy alone has to keep."""
GAINED = 3.0
"""Standard deviations of the returns by which planning has to be above random play for that to be asked."""
AT_THE_ENDS = 0.9
"""Share of the policy's means near ±1 from which on its gradient, which passes through tanh, is next to nothing."""
ALIKE = 0.01
"""Variance of a latent's group over states, of 1 − 1/V at most."""
DEAD = 1e-9
"""Gradient norm of a part that nothing reaches any more."""
PINNED = 0.8
"""Share of its upper limit that the policy's standard deviation may reach."""
GRADIENTS_CLIPPED = 5.0
"""Gradient norm over the norm that it is clipped to."""


@dataclass(frozen=True)
class LearningFigures:
    """The last value of every figure that the rows hold: diagnostics, gradients, updates, evaluation (`eval/…`)."""

    step: int
    values: Mapping[str, float]
    horizon: int

    def get(self, name: str) -> float | None:
        """`diag/value_bias` by its whole name; None where it was not measured."""
        return self.values.get(name)


def diagnose_job(paths: JobPaths) -> tuple[LearningFigures, list[Finding]]:
    """Read a job's figures and judge them.

    Raises:
        UsageError: the job has none yet.
        RecordError: its files can't be read.
    """
    spec = load_resolved(paths.resolved)
    rows, _ = read_jsonl(paths.metrics)
    figures = last_figures(rows, spec.agent.horizon)
    if figures is None:
        every = f"every {spec.train.checkpoint_every:,} steps (train.checkpoint_every; evaluations are off)"
        if spec.eval is not None:
            every = f"every {spec.eval.every:,} steps (eval.every), before an evaluation"
        failed = [event for event in read_events(paths.events) if event.get("event") == "failed"]
        why = f"; it failed: {failed[-1].get('cause')}" if failed else ""
        raise UsageError(f"job {paths.id} has no diagnostics yet: they are measured {every}{why}")
    return figures, list(signs(figures, spec))


def last_figures(rows: list[Row], horizon: int) -> LearningFigures | None:
    """The newest diagnostics with the newest losses and evaluation; None where no diagnostics were measured."""

    def newest(found: Callable[[Row], bool]) -> Row:
        return next((row for row in reversed(rows) if found(row)), {})

    measured = newest(lambda row: any(key.startswith("diag/") for key in row))
    if not measured:
        return None
    losses = {k: v for k, v in newest(lambda row: "grad_norm/model" in row).items() if not k.startswith("diag/")}
    evaluation = newest(lambda row: row.get("split") == "eval")
    named = {**losses, **measured, **{f"eval/{key}": value for key, value in evaluation.items()}, **_random_play(rows)}
    values = {k: n for k, v in named.items() if (n := as_float(v)) is not None and (k == "updates" or "/" in k)}
    return LearningFigures(as_int(measured.get("step")) or 0, values, horizon)


def _random_play(rows: list[Row]) -> dict[str, float]:
    """The mean return of the training's episodes before the first losses, as `random/return`; nothing without any."""
    seeds = itertools.takewhile(lambda row: "grad_norm/model" not in row, rows)
    returns = [n for row in seeds if row.get("split") == "train" and (n := as_float(row.get("return"))) is not None]
    return {"random/return": statistics.fmean(returns)} if returns else {}


def signs(figures: LearningFigures, spec: Spec) -> Iterator[Finding]:
    """Judge every figure that is there, the world model first."""
    yield from _model(figures, spec)
    yield from _value(figures, spec)
    yield from _bins(figures, spec)
    yield from _ends(figures, past_ends=spec.train.past_ends)
    yield from _actions(figures)
    yield from _policy(figures, spec)
    yield from _planner(figures)
    yield from _replay(figures, spec)
    yield from _gradients(figures, spec)


def _model(figures: LearningFigures, spec: Spec) -> Iterator[Finding]:
    variance = figures.get("diag/latent_variance")
    first, last = figures.get("diag/model_error_1"), figures.get(f"diag/model_error_{figures.horizon}")
    if first is None or last is None:
        return
    found = f"{first:.2g} of the latent's variance one step ahead, {last:.2g} after {figures.horizon}"
    if variance is not None and variance < ALIKE:
        norm = "" if spec.agent.encoder_norm else "agent.encoder_norm: on; "
        said = f"{found}; latents of different states differ by a variance of {variance:.2g} only: all look alike to it"
        yield Finding("warning", "world model", said, f"{norm}agent.lr (lower), agent.consistency_weight (lower)")
    elif first > BLOWN_UP:
        remedy = "agent.lr (lower): training longer will not mend it"
        yield Finding("warning", "world model", f"{found}: the latents have collapsed or blown up", remedy)
    elif first > MODEL_ERROR:
        yield Finding(
            "warning",
            "world model",
            f"{found}: it hardly predicts better than the mean latent",
            "train longer; agent.lr (lower when the losses jump), agent.consistency_weight, agent.latent_dim",
        )
    elif figures.horizon > 1 and last > GROWTH * first and last > MODEL_ERROR:
        yield Finding(
            "warning",
            "world model",
            f"{found}: the end of a plan is guesswork",
            f"agent.horizon below {figures.horizon}; agent.rho nearer to 1 gives late steps more weight",
        )
    else:
        yield Finding("ok", "world model", found)


def _value(figures: LearningFigures, spec: Spec) -> Iterator[Finding]:
    bias, spread = figures.get("diag/value_bias"), figures.get("diag/value_spread")
    predicted, realised = figures.get("diag/value_predicted"), figures.get("diag/value_realised")
    if bias is None or spread is None or predicted is None or realised is None:
        return
    found = f"predicted {predicted:.3g}, realised {realised:.3g} (spread of the returns {spread:.2g})"
    unit = max(spread, 0.01 * abs(realised), 1e-6)
    if -LAG * unit <= bias <= BIAS * unit:
        yield Finding("ok", "value", found)
    elif min(0.0, realised) <= predicted <= max(0.0, realised):  # values begin at 0 and move by the targets' steps
        young = figures.step < spec.train.steps / 2
        remedy = "" if young else "train longer; agent.tau (higher), train.updates_per_step (higher)"
        yield Finding("ok" if young else "warning", "value", f"{found}: still on its way from 0", remedy)
    elif bias > 0:
        remedy = "train.updates_per_step (lower), agent.tau (lower), agent.discount (lower)"
        yield Finding("warning", "value", f"{found}: overestimated", remedy)
    else:
        remedy = "train longer; agent.discount (lower learns faster), agent.tau (higher)"
        yield Finding("warning", "value", f"{found}: underestimated", remedy)


def _bins(figures: LearningFigures, spec: Spec) -> Iterator[Finding]:
    rewards, values = figures.get("diag/reward_clipped"), figures.get("diag/value_clipped")
    if rewards is None or values is None:
        return
    found = f"{rewards:.2%} of the rewards and {values:.2%} of the returns lie outside"
    if max(rewards, values) > CLIPPED:
        reach = f"[{spec.agent.bin_low:g}, {spec.agent.bin_high:g}]"
        yield Finding(
            "warning",
            "bins",
            f"{found} {reach} in symlog space",
            "reward.scale (lower), or wider agent.bin_low, agent.bin_high",
        )
    else:
        yield Finding("ok", "bins", found)


def _ends(figures: LearningFigures, *, past_ends: bool) -> Iterator[Finding]:
    recall, precision = figures.get("diag/termination_recall"), figures.get("diag/termination_precision")
    share = figures.get("diag/terminated")
    if not share:
        if precision is not None:  # it says so, and nothing ever ended
            found = "foretells ends, and no episode ended by itself"
            yield Finding("warning", "termination", found, "agent.termination_weight (higher); train longer")
        return
    parts = [f"{share:.2%} of the steps end an episode"]
    parts += [] if recall is None else [f"{recall:.0%} of these foreseen {figures.horizon} steps ahead"]
    parts += [] if precision is None else [f"right when said {precision:.0%}"]
    near = figures.get("diag/termination_recall_1") if past_ends else None  # else never learned at that depth
    parts += [] if near is None else [f"{near:.0%} one step ahead"]
    poor = any(x is not None and x < least for x, least in ((recall, RECALL), (near, RECALL), (precision, PRECISION)))
    remedy = "agent.termination_weight (higher); rare ends take long to learn" if poor else ""
    yield Finding("warning" if poor else "ok", "termination", ", ".join(parts), remedy)


def _actions(figures: LearningFigures) -> Iterator[Finding]:
    taken, policy = figures.get("diag/action_saturation"), figures.get("diag/policy_saturation")
    stuck = figures.get("diag/action_stuck")
    if taken is None or policy is None:
        return
    found = f"{taken:.0%} of the entries near ±1, {policy:.0%} of the policy's means"
    if stuck is not None and stuck > SATURATION:
        # of both: a policy that is sure of itself is no trouble where planning corrects it
        remedy = "agent.entropy_weight (higher); fine where the best play is full throttle"
        yield Finding("warning", "actions", f"{found}, {stuck:.0%} of both in one entry: stuck at the ends", remedy)
    else:
        yield Finding("ok", "actions", found)


def _policy(figures: LearningFigures, spec: Spec) -> Iterator[Finding]:
    """The policy without the planner, on the scale from random play (0) to planning (1); and its spread."""
    std, limit = figures.get("diag/policy_std"), math.exp(spec.agent.log_std_max)
    kept = _kept(figures)
    if std is None:
        return
    alone, at_ends = figures.get("eval/policy_return_mean"), figures.get("diag/policy_saturation") or 0.0
    pinned = std > PINNED * limit
    found = f"its spread is {std:.2g} of at most {limit:.2g}"
    found += "" if kept is None else f"; alone it keeps {max(kept, 0):.0%} of what planning gains over random play"
    if kept is None or kept >= KEPT:
        yield Finding("ok", "policy", found)
        return
    found += f" (return {alone:.3g})"
    gaussian = spec.agent.entropy == "gaussian"
    squashed = "agent.entropy: squashed" + ("" if spec.agent.entropy_weight > 0 else " with agent.entropy_weight 1e-4")
    if pinned and gaussian:
        yield Finding("warning", "policy", f"{found}: it acts by chance, since wider always pays", squashed)
    elif at_ends > AT_THE_ENDS:
        gradient = figures.get("grad_norm/policy")
        flat = "" if gradient is None else f" and hardly passes a gradient on ({gradient:.2g})"
        remedy = f"{squashed}; a new job: this one does not come back" if gaussian else "agent.entropy_weight (higher)"
        said = f"{found}: {at_ends:.0%} of its means are at the ends, where tanh is flat{flat}"
        yield Finding("warning", "policy", said, remedy)
    else:
        remedy = "agent.policy_prior: cloned (it learns from the planner's actions); train longer"
        yield Finding("warning", "policy", f"{found}: it has learned little of what the planner finds", remedy)


def _kept(figures: LearningFigures) -> float | None:
    """See `KEPT`; None where that is not known, or planning is hardly better than random play."""
    planned, alone = figures.get("eval/return_mean"), figures.get("eval/policy_return_mean")
    random, spread = figures.get("random/return"), figures.get("eval/return_std")
    if planned is None or alone is None or random is None or spread is None:
        return None
    gained = planned - random
    return None if gained <= GAINED * max(spread, 1e-6) else (alone - random) / gained


def _planner(figures: LearningFigures) -> Iterator[Finding]:
    """By the newest evaluation, which plays its episodes both ways."""
    planned, alone = figures.get("eval/return_mean"), figures.get("eval/policy_return_mean")
    spread, distance = figures.get("eval/return_std"), figures.get("diag/planner_distance")
    if planned is None or alone is None or spread is None:
        return
    wins = figures.get("eval/win"), figures.get("eval/policy_win")
    found = f"return {planned:.3g} with planning, {alone:.3g} by the policy alone"
    found += "" if wins[0] is None or wins[1] is None else f"; won {wins[0]:.0%} and {wins[1]:.0%}"
    found += "" if distance is None else f" (actions {distance:.2f} apart)"
    if alone - planned > WORSE * max(spread, 1e-6):
        remedy = "the model misleads it (see world model), or too few planner.samples, planner.iterations"
        yield Finding("warning", "planner", f"{found}: planning makes it worse", remedy)
    else:
        yield Finding("ok", "planner", found)


def _replay(figures: LearningFigures, spec: Spec) -> Iterator[Finding]:
    age, never = figures.get("diag/replay_age_mean"), figures.get("diag/never_sampled")
    if age is None or never is None:
        return
    held, updates = figures.get("replay/steps"), figures.get("updates")
    found = f"samples are {age:,.0f} steps old on average, {never:.0%} of the episodes are never sampled"
    if never > NEVER:
        remedy = (
            f"agent.horizon below {spec.agent.horizon}: shorter episodes than that can't be learned from; "
            "train.replay_capacity (higher), where they are dropped too soon"
        )
        yield Finding("warning", "replay", found, remedy)
    elif held is not None and held < min(HELD * figures.step, ENOUGH_HELD):
        found += f"; it holds the newest {held:,.0f} steps only"
        yield Finding("warning", "replay", found, "train.replay_capacity (higher)")
    elif updates is not None and updates < UPDATES * (figures.step - (spec.train.seed_steps or 0)):
        found += f"; {updates:,.0f} updates in {figures.step:,} steps"
        yield Finding("warning", "replay", found, "train.updates_per_step (higher): little is made of what is there")
    else:
        yield Finding("ok", "replay", found)


def _gradients(figures: LearningFigures, spec: Spec) -> Iterator[Finding]:
    norms = {k.partition("/")[2]: v for k, v in figures.values.items() if k.startswith("grad_norm/")}
    if not norms:
        return
    found = ", ".join(f"{part} {norm:.2g}" for part, norm in norms.items())
    largest = max(norms, key=lambda part: norms[part])
    dead = [part for part in ("encoder", "dynamics", "reward", "q", "policy") if norms.get(part, 1.0) < DEAD]
    if dead:
        remedy = "agent.lr (lower): such a part does not come back by itself"
        yield Finding("warning", "gradients", f"{found}: none reaches {', '.join(dead)}", remedy)
    elif norms[largest] > GRADIENTS_CLIPPED * spec.agent.grad_clip:
        remedy = f"agent.lr (lower), reward.scale (lower); agent.grad_clip is {spec.agent.grad_clip:g}"
        yield Finding("warning", "gradients", f"{found}: most of {largest}'s is clipped away", remedy)
    else:
        yield Finding("ok", "gradients", found)


def as_dict(figures: LearningFigures, found: list[Finding]) -> dict[str, Any]:
    """For scripts."""
    return {
        "step": figures.step,
        "figures": dict(figures.values),
        "signs": [{"level": sign.level, "name": sign.check, "found": sign.what, "look_at": sign.fix} for sign in found],
    }
