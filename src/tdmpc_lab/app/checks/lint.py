"""Advice on a config before it is submitted: rules with names, and the number behind each. Nothing stops a job.

Some rules read the config alone; two look at its environment: the length of its episodes, the size of its rewards.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from difflib import get_close_matches
from typing import TYPE_CHECKING

from tdmpc_lab.app.agents.opponents import stand_in
from tdmpc_lab.app.checks.preflight import SILENCEABLE
from tdmpc_lab.app.submit.submit import Cluster, JobPlan, of_one_sweep
from tdmpc_lab.config.schema import AgentConfig, Spec
from tdmpc_lab.errors import Finding, LabError, UsageError
from tdmpc_lab.jobs.paths import Project
from tdmpc_lab.text import count, duration, number

if TYPE_CHECKING:
    from tdmpc_lab.envs.make import Look


# Below this weight the error of a step does not change what is learned; ρ = 0.5 comes to it at horizon 15.
_NO_WEIGHT = 1e-4
_CHANGES = 3

AdviceRule = Callable[[Project, JobPlan, Cluster], Iterator[Finding]]


def lint(
    project: Project, plans: Sequence[JobPlan], cluster: Cluster, off: Sequence[str] = (), *, environments: bool = True
) -> list[tuple[Finding, list[int]]]:
    """What the rules say, each finding once with the numbers of the plans it is about.

    With `environments`, each different one is made and played in for a moment; not for debug, whose own process that
    would be.

    A spec's own `lint.silent` holds for its plans. Raises UsageError for a rule in `off` that there is not.
    """
    check_rules(off)
    found: dict[Finding, list[int]] = {}
    for index, plan in enumerate(plans):
        off_here = {*off, *plan.item.spec.lint.silent}
        if index > 0 and of_one_sweep(plans[index - 1], plan):
            off_here |= ONCE_A_SWEEP
        for name, rule in RULES.items():
            if name not in off_here:
                for finding in rule(project, plan, cluster):
                    found.setdefault(finding, []).append(index)
    looks: dict[str, Look | None] = {}
    for index, plan in enumerate(plans if environments and cluster != "debug" else ()):
        spec = plan.item.spec
        looking = {n: rule for n, rule in LOOKING_RULES.items() if n not in off and n not in spec.lint.silent}
        if not looking:
            continue
        if (key := repr(spec.env)) not in looks:
            looks[key] = look(project, spec)
        for name, look_rule in looking.items():
            if (seen := looks[key]) is not None and (said := look_rule(spec, seen)):
                found.setdefault(_advice(name, *said), []).append(index)
    return list(found.items())


def check_rules(off: Sequence[str]) -> None:
    """Raise UsageError for the name of a rule that there is not."""
    known = [*RULES, *LOOKING_RULES, *SILENCEABLE]
    if unknown := [name for name in off if name not in known]:
        near = get_close_matches(unknown[0], known, n=1)
        meant = f" (did you mean {near[0]!r}?)" if near else ""
        raise UsageError(f"--no-lint {unknown[0]}: no such rule{meant}; there are: {', '.join(known)}")


def with_advice(plans: Sequence[JobPlan], found: Sequence[tuple[Finding, list[int]]]) -> list[JobPlan]:
    """The plans with what was said of each, for their records."""
    said: dict[int, list[str]] = {}
    for finding, indices in found:
        for index in indices:
            said.setdefault(index, []).append(str(finding))
    return [replace(plan, warned=(*plan.warned, *said.get(index, ()))) for index, plan in enumerate(plans)]


def _temporal_weight(_project: Project, plan: JobPlan, _cluster: Cluster) -> Iterator[Finding]:
    agent = plan.item.spec.agent
    weight = agent.rho ** (agent.horizon - 1)
    if weight < _NO_WEIGHT:
        yield _advice(
            "temporal-weight",
            f"agent.horizon={agent.horizon} is long for agent.rho={agent.rho:g}",
            f"the last step's error counts {agent.rho:g}^{agent.horizon - 1} = {weight:.1e} of the first one's, so "
            "that the model does not learn to look that far",
            "a shorter horizon, or a larger agent.rho",
        )


def _run_time(project: Project, plan: JobPlan, cluster: Cluster) -> Iterator[Finding]:
    from tdmpc_lab.app.checks.estimate import estimate_run_time

    if cluster != "slurm":
        return
    spec = plan.item.spec
    done = plan.steps_done
    estimate = estimate_run_time(project, spec, cluster, done)
    limit = spec.slurm.time.total_seconds()
    if estimate is not None and estimate.seconds > limit:
        what = f"the {count(spec.train.steps - done, 'step')} left take" if done else "the job takes"
        yield _advice(
            "run-time",
            f"slurm.time is {duration(limit)}, and {what} about {duration(estimate.seconds)}",
            f"{estimate.basis}; at its limit it has to be started again",
            "a longer slurm.time",
        )


def _changes(_project: Project, plan: JobPlan, _cluster: Cluster) -> Iterator[Finding]:
    spec = plan.item.spec
    if plan.goes_on_from is None and plan.rerun_of is None and len(plan.diff) > _CHANGES:
        yield _advice(
            "changes",
            f"{len(plan.diff)} settings differ from {spec.compare_to}",
            "you will not know which one did it",
            f"change at most {_CHANGES} at a time, or compare to a nearer job",
        )


def _advice(name: str, what: str, why: str, fix: str) -> Finding:
    return Finding(level="warning", check=name, what=what, why=why, fix=f"{fix}; --no-lint {name} for silence")


def look(project: Project, spec: Spec) -> Look | None:
    """Play in the spec's environment for a moment; None where that can't be done, which others tell."""
    from tdmpc_lab.envs.make import look_at

    try:
        return look_at(spec.env, spec.train.seed, lambda name: stand_in(project, name))
    except LabError:
        return None


def too_short(spec: Spec, seen: Look) -> tuple[str, str, str] | None:
    """Episodes that can't hold a sub-sequence: what, why and what to do."""
    horizon, length = spec.agent.horizon, seen.episode_length
    if length > horizon or spec.train.past_ends:
        return None
    return (
        f"agent.horizon={horizon}, and an episode has at most {count(length, 'step')}",
        "an episode shorter than horizon + 1 steps is never sampled: nothing would be learned",
        f"a horizon below {length}, longer episodes (env.max_episode_steps), or train.past_ends: on",
    )


def out_of_range(spec: Spec, seen: Look) -> tuple[str, str, str] | None:
    """Rewards that the bins of the discrete regression can't tell apart: what, why and what to do."""
    agent, largest = spec.agent, seen.largest_reward * spec.reward.scale
    highest, narrowest = _symexp(min(agent.bin_high, -agent.bin_low)), _symexp(_bin_width(agent))
    scaled = f"rewards of up to {number(largest)} (seen in random play, times reward.scale)"
    if largest > highest:
        return (
            f"{scaled} lie outside the bins, which end at {number(highest)}",
            "everything beyond the last bin is learned as the last bin",
            "a smaller reward.scale, or wider agent.bin_low and bin_high",
        )
    if 0 < largest < narrowest:
        return (
            f"{scaled} are smaller than one bin, which is {number(narrowest)} wide at zero",
            "differences within one bin are learned slowly and drown in the noise",
            "a larger reward.scale, or more agent.bins",
        )
    return None


def _bin_width(agent: AgentConfig) -> float:
    """In symlog space."""
    return (agent.bin_high - agent.bin_low) / (agent.bins - 1)


def _symexp(x: float) -> float:
    return math.copysign(math.expm1(abs(x)), x)


RULES: dict[str, AdviceRule] = {"temporal-weight": _temporal_weight, "run-time": _run_time, "changes": _changes}
"""By the name that `--no-lint` takes."""
ONCE_A_SWEEP = {"run-time"}
"""Its first point stands for all: an estimate reads the files of many jobs."""
LOOKING_RULES: dict[str, Callable[[Spec, Look], tuple[str, str, str] | None]] = {
    "episode-length": too_short,
    "reward-range": out_of_range,
}
"""Those that have to see the environment."""
