"""`check`: what `submit` checks first, alone."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace
from typing import TYPE_CHECKING, Any

from tdmpc_lab.cli.common import OK, add_profile, add_spec_and_sizes, print_json, project_here
from tdmpc_lab.text import count

if TYPE_CHECKING:
    pass


_GIB = 2**30


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


def add_check(p: ArgumentParser) -> None:
    """The words of `check`."""
    add_spec_and_sizes(p)
    add_profile(p)
    p.add_argument(
        "--cluster",
        choices=["auto", "local", "slurm"],
        default="auto",
        help="where the job would run; auto: slurm where sbatch exists, else local",
    )
    p.set_defaults(run=check, rest="overrides")
