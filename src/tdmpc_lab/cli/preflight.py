"""The look ahead of a submit, and `check`, which is that alone."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tdmpc_lab.cli.common import project_here
from tdmpc_lab.cli.output import print_json
from tdmpc_lab.text import count

if TYPE_CHECKING:
    from tdmpc_lab.app.submit.submit import Cluster, Plan
    from tdmpc_lab.jobs.paths import Project

OK = 0
_GIB = 2**30


def stop_on_errors(
    project: Project, plans: Sequence[Plan], cluster: Cluster, args: Namespace, *, try_agents: bool = True
) -> None:
    """Look ahead of jobs for SLURM; warnings are told. A dry run needs no SLURM, so its absence is only told.

    Raises PreflightError with everything that would make a job fail or never start.
    """
    if cluster != "slurm" or args.skip_preflight:
        return
    from tdmpc_lab.app.checks.lint import check_rules
    from tdmpc_lab.app.checks.preflight import look_ahead

    check_rules(args.no_lint)
    dry = getattr(args, "dry_run", False)
    items = [plan.item for plan in plans]
    report = look_ahead(project, items, slurm=True, try_agents=try_agents, slurm_needed=not dry, off=args.no_lint)
    for finding in report.warnings:
        print(f"warning: {finding}", file=sys.stderr)
    report.raise_errors()


def check(args: Namespace) -> int:
    """`check SPEC`."""
    from tdmpc_lab.app.agents.describe import check_spec
    from tdmpc_lab.app.submit.resources import launch_overrides
    from tdmpc_lab.app.submit.submit import choose_cluster

    project = project_here()
    slurm = choose_cluster(args.cluster) == "slurm"
    overrides = args.overrides + launch_overrides(project, args.profile, [])
    facts, report = check_spec(project, args.spec, overrides, args.obs_dim, args.action_dim, slurm=slurm)
    if args.json:
        print_json(facts)
    else:
        _show(facts)
    for finding in report.findings:
        print(f"{finding.level}: {finding}", file=sys.stderr)
    return min((finding.exit_code for finding in report.errors), default=OK)


def _show(facts: dict[str, Any]) -> None:
    points = f"; {facts['points']} points, described is the first" if facts["points"] > 1 else ""
    print(f"{facts['spec']}: the spec is valid{points}")
    if "device" not in facts:
        return
    if facts["environment_steps"] is None:
        print(f"environment: left out; sizes as given, {facts['observation_dim']} and {facts['action_dim']}")
    else:
        print(
            f"environment: made and stepped {count(facts['environment_steps'], 'time')}; observation "
            f"{facts['observation_dim']}, action {facts['action_dim']}, episodes of "
            f"{count(facts['episode_length'], 'step')}"
        )
    print(f"agent: {facts['parameters']:,} parameters; one plan and one update ran on {facts['device']}")
    memory = {name: f"{size / _GIB:.2f}" for name, size in facts["device_memory"].items()}
    print(
        f"memory: about {memory['total']} GiB on the training device at full size (weights {memory['weights']}, "
        f"gradients and Adam {memory['training']}, an update {memory['update']}, a plan {memory['plan']})"
    )
