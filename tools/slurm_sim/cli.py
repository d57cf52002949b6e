"""The command line of slurm-sim."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from slurm_sim.cluster import Cluster
from slurm_sim.config import NODES, PARTITIONS
from slurm_sim.daemons import SimError

DEFAULT_FOLDER = Path(__file__).resolve().parents[2] / ".slurm-sim"
OK, NOT_UP = 0, 1


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    args = _parser().parse_args(argv)
    cluster = Cluster(args.dir)
    try:
        return int(args.run(cluster, args))
    except SimError as error:
        print(f"slurm-sim: {error}", file=sys.stderr)
        return error.code
    except BrokenPipeError:  # the reader (head, grep -q) has gone: nothing more to say to it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return OK


def _parser() -> argparse.ArgumentParser:
    folder = argparse.ArgumentParser(add_help=False)
    folder.add_argument(
        "--dir",
        type=Path,
        default=DEFAULT_FOLDER,
        help="where everything lies (default: .slurm-sim in the project)",
    )
    parser = argparse.ArgumentParser(
        prog="slurm-sim",
        description="A real SLURM cluster of four virtual nodes with typed GPUs on this machine, as root or as "
        "an ordinary user. Several can run at once, each in a folder of its own.",
        epilog="exit codes: 0 done, 1 the cluster did not start or is not up, 2 wrong command line or folder, "
        "3 packages are missing",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def add(name: str, run: object, text: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, parents=[folder], help=text, description=text)
        sub.set_defaults(run=run)
        return sub

    up = add("up", _up, "start the cluster; returns when every node takes jobs; harmless when it is up")
    up.add_argument("--no-accounting", action="store_true", help="without slurmdbd and MariaDB: sacct will not work")
    up.add_argument(
        "--all-users",
        action="store_true",
        help="other users of this machine may submit, too; only root can run their jobs. The folder's path has to be "
        "open to them",
    )
    down = add("down", _down, "stop the cluster; harmless when it is down")
    down.add_argument("--remove", action="store_true", help="delete its folder as well")
    add("status", _status, "what runs; the exit code is 0 when the cluster is up, else 1")
    add("env", _env, 'the line for the shell: eval "$(tools/slurm-sim env)"')
    kill = add("kill-node", _kill_node, "end a node as a power cut does, with its jobs")
    kill.add_argument(
        "--slurmd-only", action="store_true", help="only its slurmd: the jobs continue, and SLURM can't see them"
    )
    start = add("start-node", _start_node, "start a node that was killed")
    for sub in (kill, start):
        sub.add_argument("node", choices=NODES, metavar="NAME", help=", ".join(NODES))
    add("stop-controller", _stop_controller, "stop slurmctld: SLURM no longer answers, running jobs continue")
    add("start-controller", _start_controller, "start slurmctld again")
    return parser


def _up(cluster: Cluster, args: argparse.Namespace) -> int:
    began, was_up = time.monotonic(), cluster.is_up()
    cluster.up(accounting=not args.no_accounting, all_users=args.all_users)
    nodes = ", ".join(f"{name} (4 × {gpu})" for name, gpu in NODES.items())
    how = "was up already" if was_up else f"is up after {time.monotonic() - began:.1f} s"
    print(f"the cluster {how}: {nodes}; partitions {', '.join(PARTITIONS)}")
    print(f"use it:   {_export(cluster)}")
    print(f"end it:   {_this_command()} down{_dir_option(args)}")
    return OK


def _down(cluster: Cluster, args: argparse.Namespace) -> int:
    if args.remove:
        cluster.remove()
    else:
        cluster.down()
    return OK


def _status(cluster: Cluster, args: argparse.Namespace) -> int:
    wanted = cluster.wanted()
    if not any(daemon.pid() for daemon in wanted):
        print(f"down; start it with: {_this_command()} up{_dir_option(args)}")
        return NOT_UP
    states = {}
    try:
        states = cluster.node_states()
    except SimError as error:
        print(f"slurm-sim: {error}", file=sys.stderr)
    for daemon in wanted:
        pid = daemon.pid()
        state = f"  {states[daemon.name]}" if daemon.name in states else ""
        print(f"{daemon.name:12} {f'runs, process {pid}' if pid else 'down'}{state}")
    print(f"accounting   {'on' if cluster.accounting() else 'off'}")
    print(f"use it       {_export(cluster)}")
    return OK if cluster.is_up() else NOT_UP


def _env(cluster: Cluster, args: argparse.Namespace) -> int:
    if not cluster.wanted():
        raise SimError(f"there is no cluster yet; start it with: {_this_command()} up{_dir_option(args)}")
    print(_export(cluster))
    return OK


def _kill_node(cluster: Cluster, args: argparse.Namespace) -> int:
    cluster.kill_node(args.node, slurmd_only=args.slurmd_only)
    return OK


def _start_node(cluster: Cluster, args: argparse.Namespace) -> int:
    cluster.start_node(args.node)
    return OK


def _stop_controller(cluster: Cluster, _args: argparse.Namespace) -> int:
    cluster.stop_controller()
    return OK


def _start_controller(cluster: Cluster, _args: argparse.Namespace) -> int:
    cluster.start_controller()
    return OK


def _export(cluster: Cluster) -> str:
    return f"export SLURM_CONF={shlex.quote(str(cluster.conf))}"


def _this_command() -> str:
    return shlex.quote(sys.argv[0])


def _dir_option(args: argparse.Namespace) -> str:
    return "" if args.dir == DEFAULT_FOLDER else f" --dir {shlex.quote(str(args.dir))}"
