"""What looks wrong in a job's own figures, in words, and which setting to look at: `doctor JOB`.

Thresholds are rules of thumb, explained one by one in docs/diagnostics.md.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from tdmpc_lab.config.loader import load_resolved
from tdmpc_lab.config.schema import Spec
from tdmpc_lab.errors import UsageError
from tdmpc_lab.files import read_jsonl
from tdmpc_lab.jobs.metrics import Row, as_float, as_int
from tdmpc_lab.jobs.paths import JobPaths

_RECENT = 200
"""Rows among which the newest losses are looked for: they come often."""
Level = Literal["ok", "warning"]

MODEL_ERROR = 0.5
"""Of the latent's variance, one step ahead: the model hardly predicts better than the mean."""
GROWTH = 10.0
"""Model error at the end of the horizon over that of one step."""
BIAS = 1.0
"""Overestimation in standard deviations of the returns."""
SATURATION = 0.8
CLIPPED = 0.001
RECALL = PRECISION = 0.5
NEVER = 0.1
GRADIENTS_CLIPPED = 5.0
"""Gradient norm over the norm that it is clipped to."""


@dataclass(frozen=True)
class Sign:
    """One thing that was looked at."""

    level: Level
    name: str
    found: str
    """The figure, in words."""
    look_at: str = ""
    """Settings, and what they would do."""


@dataclass(frozen=True)
class Figures:
    """The last value of every figure that the rows hold."""

    step: int
    values: Mapping[str, float]
    horizon: int

    def get(self, name: str) -> float | None:
        """`diag/value_bias` by its whole name; None where it was not measured."""
        return self.values.get(name)


def diagnose_job(paths: JobPaths) -> tuple[Figures, list[Sign]]:
    """Read a job's figures and judge them.

    Raises:
        UsageError: the job has none yet.
        RecordError: its files can't be read.
    """
    spec = load_resolved(paths.resolved)
    rows, _ = read_jsonl(paths.metrics)
    figures = last_figures(rows, spec.agent.horizon)
    if figures is None:
        when = "off" if spec.eval is None else f"every {spec.eval.every:,} steps, before an evaluation"
        raise UsageError(f"job {paths.id} has no diagnostics yet: they are measured {when} (eval.every)")
    return figures, list(signs(figures, spec))


def last_figures(rows: list[Row], horizon: int) -> Figures | None:
    """The newest diagnostics with the newest losses; None where none were measured."""
    measured = [row for row in rows if any(key.startswith("diag/") for key in row)]
    if not measured:
        return None
    values: dict[str, float] = {}
    losses = [{k: v for k, v in row.items() if not k.startswith("diag/")} for row in rows[-_RECENT:]]
    for row in [*losses, measured[-1]]:
        values |= {k: n for k, v in row.items() if "/" in k and (n := as_float(v)) is not None}
    return Figures(as_int(measured[-1].get("step")) or 0, values, horizon)


def signs(figures: Figures, spec: Spec) -> Iterator[Sign]:
    """Judge every figure that is there, the world model first."""
    yield from _model(figures)
    yield from _value(figures)
    yield from _bins(figures, spec)
    yield from _ends(figures)
    yield from _actions(figures)
    yield from _planner(figures)
    yield from _replay(figures, spec)
    yield from _gradients(figures, spec)


def _model(figures: Figures) -> Iterator[Sign]:
    first, last = figures.get("diag/model_error_1"), figures.get(f"diag/model_error_{figures.horizon}")
    if first is None or last is None:
        return
    found = f"{first:.2g} of the latent's variance one step ahead, {last:.2g} after {figures.horizon}"
    if first > MODEL_ERROR:
        yield Sign(
            "warning",
            "world model",
            f"{found}: it hardly predicts better than the mean latent",
            "train longer; agent.lr (lower when the losses jump), agent.consistency_weight, agent.latent_dim",
        )
    elif figures.horizon > 1 and last > GROWTH * first and last > MODEL_ERROR:
        yield Sign(
            "warning",
            "world model",
            f"{found}: the end of a plan is guesswork",
            f"agent.horizon below {figures.horizon}; agent.rho nearer to 1 gives late steps more weight",
        )
    else:
        yield Sign("ok", "world model", found)


def _value(figures: Figures) -> Iterator[Sign]:
    bias, spread = figures.get("diag/value_bias"), figures.get("diag/value_spread")
    predicted, realised = figures.get("diag/value_predicted"), figures.get("diag/value_realised")
    if bias is None or spread is None or predicted is None or realised is None:
        return
    found = f"predicted {predicted:.3g}, realised {realised:.3g} (spread of the returns {spread:.2g})"
    unit = max(spread, 0.01 * abs(realised), 1e-6)
    if bias > BIAS * unit:
        remedy = "agent.q_heads (more are more cautious), train.updates_per_step (lower), agent.tau (lower)"
        yield Sign("warning", "value", f"{found}: overestimated", remedy)
    elif bias < -BIAS * unit:
        remedy = "train longer: values grow step by step; agent.tau (higher), agent.discount (lower learns faster)"
        yield Sign("warning", "value", f"{found}: underestimated", remedy)
    else:
        yield Sign("ok", "value", found)


def _bins(figures: Figures, spec: Spec) -> Iterator[Sign]:
    rewards, values = figures.get("diag/reward_clipped"), figures.get("diag/value_clipped")
    if rewards is None or values is None:
        return
    found = f"{rewards:.2%} of the rewards and {values:.2%} of the returns lie outside"
    if max(rewards, values) > CLIPPED:
        reach = f"[{spec.agent.bin_low:g}, {spec.agent.bin_high:g}]"
        yield Sign("warning", "bins", f"{found} {reach} in symlog space", "reward.scale (lower), agent.bin_high")
    else:
        yield Sign("ok", "bins", found)


def _ends(figures: Figures) -> Iterator[Sign]:
    recall, precision = figures.get("diag/termination_recall"), figures.get("diag/termination_precision")
    share = figures.get("diag/terminated")
    if not share:
        if precision is not None:  # it says so, and nothing ever ended
            found = "foretells ends, and no episode ended by itself"
            yield Sign("warning", "termination", found, "agent.termination_weight (higher); train longer")
        return
    parts = [f"{share:.2%} of the steps end an episode"]
    parts += [] if recall is None else [f"foreseen {recall:.0%}"]
    parts += [] if precision is None else [f"right when said {precision:.0%}"]
    poor = (recall is not None and recall < RECALL) or (precision is not None and precision < PRECISION)
    remedy = "agent.termination_weight (higher); rare ends take long to learn" if poor else ""
    yield Sign("warning" if poor else "ok", "termination", ", ".join(parts), remedy)


def _actions(figures: Figures) -> Iterator[Sign]:
    taken, policy = figures.get("diag/action_saturation"), figures.get("diag/policy_saturation")
    if taken is None or policy is None:
        return
    found = f"{taken:.0%} of the entries near ±1, {policy:.0%} of the policy's means"
    if min(taken, policy) > SATURATION:  # a policy that is sure of itself is no trouble where planning corrects it
        remedy = "agent.entropy_weight (higher); fine where the best play is full throttle"
        yield Sign("warning", "actions", f"{found}: stuck at the ends", remedy)
    else:
        yield Sign("ok", "actions", found)


def _planner(figures: Figures) -> Iterator[Sign]:
    gain, distance = figures.get("diag/planner_gain"), figures.get("diag/planner_distance")
    spread = figures.get("diag/value_spread")
    if gain is None or distance is None or spread is None:
        return
    found = f"planning adds {gain:.3g} to Q over the policy (actions {distance:.2f} apart)"
    if gain < -0.1 * max(spread, 1e-6):
        remedy = "the model misleads it (see world model), or too few planner.samples, planner.iterations"
        yield Sign("warning", "planner", f"{found}: the plan is worse than the policy", remedy)
    else:
        yield Sign("ok", "planner", found)


def _replay(figures: Figures, spec: Spec) -> Iterator[Sign]:
    age, never = figures.get("diag/replay_age_mean"), figures.get("diag/never_sampled")
    if age is None or never is None:
        return
    found = f"samples are {age:,.0f} steps old on average, {never:.0%} of the episodes are never sampled"
    if never > NEVER:
        remedy = f"agent.horizon below {spec.agent.horizon}: shorter episodes than that can't be learned from"
        yield Sign("warning", "replay", found, remedy)
    else:
        yield Sign("ok", "replay", found)


def _gradients(figures: Figures, spec: Spec) -> Iterator[Sign]:
    norms = {k.partition("/")[2]: v for k, v in figures.values.items() if k.startswith("grad_norm/")}
    if not norms:
        return
    found = ", ".join(f"{part} {norm:.2g}" for part, norm in norms.items())
    largest = max(norms, key=lambda part: norms[part])
    if norms[largest] > GRADIENTS_CLIPPED * spec.agent.grad_clip:
        remedy = f"agent.lr (lower), reward.scale (lower); agent.grad_clip is {spec.agent.grad_clip:g}"
        yield Sign("warning", "gradients", f"{found}: most of {largest}'s is clipped away", remedy)
    else:
        yield Sign("ok", "gradients", found)


def as_dict(figures: Figures, found: list[Sign]) -> dict[str, Any]:
    """For scripts."""
    return {
        "step": figures.step,
        "figures": dict(figures.values),
        "signs": [
            {"level": sign.level, "name": sign.name, "found": sign.found, "look_at": sign.look_at} for sign in found
        ],
    }
