"""`tdmpc-lab`: the parser, and the one place that turns errors into exit codes.

0 done · 1 the job or a check failed · 2 the spec or the command line is wrong, nothing was done ·
3 something outside (SLURM, MLflow, a device) is missing or unreachable · 130 interrupted.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from tdmpc_lab import __version__
from tdmpc_lab.cli.common import documents_only, silence_stdout
from tdmpc_lab.errors import ExternalError, LabError, NoJobError
from tdmpc_lab.sharing import reason
from tdmpc_lab.streams import as_typed, take_any_text

EPILOG = """\
examples:
  tdmpc-lab submit experiments/quickstart.yaml --wait
  tdmpc-lab submit experiments/quickstart.yaml train.seed=2 agent.horizon=5
  tdmpc-lab status
  tdmpc-lab note last "the puck sticks to the wall"
  tdmpc-lab verdict last bad "because it looks too far ahead" --cause agent.horizon=5
  tdmpc-lab ui

exit codes: 0 done, 1 the job or a check failed, 2 the spec or the command line is wrong (nothing was done),
3 something outside (SLURM, MLflow, a device) is missing or unreachable
"""


@dataclass(frozen=True)
class Command:
    """A command: its line of help, and the module of this package with its `add_<name>`, loaded when it is typed."""

    module: str
    help: str


COMMANDS = {
    "init": Command("health", "make a project of a folder; --shared: one that several users share"),
    "submit": Command("submit", "check specs, record jobs and start them"),
    "resume": Command("submit", "continue from a job's last checkpoint, as a new job"),
    "rerun": Command("submit", "do a job again from its beginning, with the config and the code it ran"),
    "cancel": Command("queue", "ask jobs to stop; a running local one saves a checkpoint first"),
    "wait": Command("queue", "show jobs' progress until they end; their outcome is the exit code"),
    "status": Command(
        "queue", "the queue with what every job is, its step, result, speed and time; and the jobs that are over"
    ),
    "show": Command(
        "queue", "everything about one job on a page: what and why, state, attempts, results, files, what to do next"
    ),
    "logs": Command("queue", "what a job's process printed; -f follows it to the job's end"),
    "compare": Command(
        "agents", "which config is better: figures over seeds with intervals, differences in config, learning curves"
    ),
    "note": Command("joblog", "print a job's note, or add your words to it"),
    "verdict": Command("joblog", "say what a job's result is worth, and why"),
    "notes": Command("joblog", "the job log: read it, review jobs without a verdict, take in a hand-written log"),
    "gc": Command("queue", "list removable files (old checkpoints, code without jobs), and remove them when confirmed"),
    "sync": Command(
        "mlflow", "bring MLflow in sync with the job folders: what it lacks is sent, what it has is left as it is"
    ),
    "ui": Command("mlflow", "open this project's MLflow pages on 127.0.0.1"),
    "eval": Command("agents", "play games with a trained agent: win rates, a video; kept with its job"),
    "play": Command("agents", "watch a trained agent in a window, or play against it"),
    "export": Command("agents", "write a job's agent into a folder, without replay and optimizers"),
    "rewards": Command("agents", "draw what a spec's reward shaping and backprop make of some games"),
    "describe": Command("agents", "print a spec's networks, parameter counts, optimizers and planner"),
    "check": Command(
        "submit", "what a submit checks first: spec, environment, one plan and one update of the agent, memory, cluster"
    ),
    "doctor": Command(
        "health", "check the installation (Python, packages, torch, SLURM, MLflow, git, disk), or how a job learns"
    ),
    "bench": Command("agents", "time plans, updates and environment steps, against what the machine's products reach"),
    "schema": Command("health", "print the JSON schema of a spec file, for completion in an editor"),
}


def build_parser(only: str | None = None) -> argparse.ArgumentParser:
    """The command line; with `only`, the words of that one command alone, so that no other one's module is loaded."""
    parser = argparse.ArgumentParser(
        prog="tdmpc-lab",
        description="Run TD-MPC2 experiments from YAML specs, on SLURM or here, with MLflow runs and job notes.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"tdmpc-lab {__version__}")
    sub = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, command in COMMANDS.items():
        words = sub.add_parser(name, help=command.help)
        if only in (None, name):
            module = importlib.import_module(f"tdmpc_lab.cli.{command.module}")
            getattr(module, f"add_{name}")(words)
    return parser


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The parsed command line. Overrides may stand after options: `submit a.yaml --wait train.seed=2`.

    argparse reads a command's positional words in one run only; what comes later is handed back to it here.
    """
    typed = sys.argv[1:] if argv is None else argv
    parser = build_parser(only=next((word for word in typed if not word.startswith("-")), ""))
    arguments, later = parser.parse_known_args(typed)
    if later:
        rest = getattr(arguments, "rest", None)
        if rest is None or any(word.startswith("-") for word in later):
            parser.error(f"not understood: {' '.join(later)} (see tdmpc-lab {arguments.command} --help)")
        getattr(arguments, rest).extend(later)
    for name in ("words", "overrides"):  # not paths: those are found by their bytes
        if words := getattr(arguments, name, None):
            setattr(arguments, name, [as_typed(word) if "=" in word else word for word in words])
    for name in ("text", "because", "cause"):  # what goes into notes, whatever the terminal's encoding was
        if isinstance(words := getattr(arguments, name, None), list):
            setattr(arguments, name, [as_typed(word) for word in words])
    return arguments


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    take_any_text()
    arguments = parse(argv)
    try:
        with documents_only() if getattr(arguments, "json", False) else contextlib.nullcontext():
            return int(arguments.run(arguments))
    except LabError as error:
        problems = getattr(error, "problems", ())
        count = f"{len(problems)} problems; nothing was done\n" if len(problems) > 1 else ""
        print(f"error: {count}{error}", file=sys.stderr)
        if isinstance(error, NoJobError):
            _tell_foreign(error.job_id)
        return error.exit_code
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader (head, less) has gone: not an error, and nothing more to say to it
        silence_stdout()
        return 0
    except OSError as error:  # a folder that can't be written, a full disk: outside of us, and the path says where
        if isinstance(error, PermissionError):
            print(f"error: {reason(error)}", file=sys.stderr)
        else:
            where = f"{error.filename}: " if error.filename else ""
            print(f"error: {where}{error.strerror or error}; see to it and try again", file=sys.stderr)
        return ExternalError.exit_code


def _tell_foreign(job_id: str) -> None:
    """Of an id that is none of the project's: what SLURM knows of it, for `status` lists such jobs, too."""
    from tdmpc_lab.app.queue.status import foreign_job
    from tdmpc_lab.jobs.paths import find_project

    if known := foreign_job(find_project(), job_id):
        print(f"       {known}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
