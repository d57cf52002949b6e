"""`tdmpc-lab`: the parser, and the one place that turns errors into exit codes.

0 done · 1 the job or a check failed · 2 the spec or the command line is wrong, nothing was done ·
3 something outside (SLURM, MLflow, a device) is missing or unreachable · 130 interrupted.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Sequence

from tdmpc_lab import __version__
from tdmpc_lab.cli import commands, doctor, looking, preflight
from tdmpc_lab.cli.cleaning import add_gc
from tdmpc_lab.cli.common import add_json as _add_json
from tdmpc_lab.cli.compare import add_compare
from tdmpc_lab.cli.init import add_init
from tdmpc_lab.cli.log_parser import add_log_commands
from tdmpc_lab.cli.logs import add_logs
from tdmpc_lab.cli.output import documents_only, silence_stdout
from tdmpc_lab.cli.show import add_show
from tdmpc_lab.cli.status import add_status
from tdmpc_lab.cli.syncing import add_sync, after_sync
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


def build_parser() -> argparse.ArgumentParser:
    """The whole command line."""
    parser = argparse.ArgumentParser(
        prog="tdmpc-lab",
        description="Run TD-MPC2 experiments from YAML specs, on SLURM or here, with MLflow runs and job notes.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"tdmpc-lab {__version__}")
    sub = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    add_init(sub)
    _add_submit(sub)
    _add_resume(sub)
    _add_rerun(sub)
    _add_cancel(sub)
    _add_wait(sub)
    add_status(sub)
    add_show(sub)
    add_logs(sub)
    add_compare(sub)
    add_log_commands(sub)
    add_gc(sub)
    add_sync(sub)
    _add_ui(sub)
    _add_looking(sub)
    _add_spec_commands(sub)
    return parser


def _add_submit(sub: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    p = sub.add_parser(
        "submit",
        help="check specs, record jobs and start them",
        description="Check specs, record one job each and start them. Nothing is written if anything is wrong.",
    )
    p.add_argument("words", nargs="+", metavar="SPEC|key=value", help="spec files, and overrides for all of them")
    _add_launch_options(p)
    _add_no_snapshot(p)
    p.add_argument(
        "--again",
        action="store_true",
        help="submit although a job of the same config and seed waits, runs or completed",
    )
    p.add_argument(
        "--skip-existing",
        action="store_true",
        help="leave out what waits, runs or completed already: of a sweep the missing points are submitted",
    )
    _add_profile(p)
    p.add_argument(
        "--after",
        action="append",
        default=[],
        metavar="[KIND:]ID",
        help="SLURM starts the job when this one has finished well (afterok:ID, the default) or is over "
        "(afterany:ID); may be given several times",
    )
    p.add_argument(
        "--array-limit",
        type=_positive,
        metavar="N",
        help="jobs of one sweep that run at once in SLURM: the same as slurm.array_limit=N",
    )
    _add_dry_run(p)
    p.set_defaults(run=commands.submit, rest="words")


def _add_launch_options(p: argparse.ArgumentParser) -> None:
    p.add_argument(
        "--cluster",
        choices=["auto", "local", "slurm", "debug"],
        default="auto",
        help="auto: slurm where sbatch exists, else local. local: a process of its own on this machine. "
        "debug: in this process, with its traceback",
    )
    p.add_argument(
        "--wait",
        action="store_true",
        help="show the progress until the job ends; its outcome is the exit code",
    )
    p.add_argument(
        "--max-local",
        type=_positive,
        default=1,
        metavar="N",
        help="local jobs running at once; the others queue (default 1)",
    )
    p.add_argument(
        "--skip-preflight",
        action="store_true",
        help="do not try environment and agent, and do not compare what the job asks for to what the cluster has",
    )
    p.add_argument(
        "--no-lint",
        action="append",
        default=[],
        metavar="RULE",
        help="silence a rule of the advice on a config, as its warning names it; may be given several times",
    )
    p.add_argument(
        "--yes",
        action="store_true",
        help="do not ask when the job log holds a setting against the job; the warning stands in its note",
    )
    _add_json(p)


def _add_no_snapshot(p: argparse.ArgumentParser) -> None:
    p.add_argument(
        "--no-snapshot",
        action="store_true",
        help="run the project's files as they are when the job starts; by default those of now are kept for it",
    )


def _add_dry_run(p: argparse.ArgumentParser) -> None:
    p.add_argument("--dry-run", action="store_true", help="check everything, show what would be done, do nothing")


def _add_resume(sub: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    p = sub.add_parser("resume", help="go on from a job's last checkpoint, as a new job")
    p.add_argument("job", metavar="ID")
    p.add_argument("overrides", nargs="*", metavar="key=value", help="changes to the old job's config")
    p.add_argument("--steps", type=_positive, metavar="N", help="environment steps in all: the same as train.steps=N")
    _add_launch_options(p)
    _add_no_snapshot(p)
    _add_dry_run(p)
    p.set_defaults(run=commands.resume, rest="overrides")


def _add_rerun(sub: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    p = sub.add_parser(
        "rerun",
        help="do a job again from its beginning, with the config and the code it ran",
        description="Do a job again from its beginning, as a new job, with the config and the code that it ran.",
    )
    p.add_argument("job", metavar="ID", help="a job id, or `last`")
    p.add_argument("overrides", nargs="*", metavar="key=value", help="changes to the old job's config")
    _add_launch_options(p)
    _add_dry_run(p)
    p.set_defaults(run=commands.rerun, rest="overrides")


def _add_cancel(sub: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    p = sub.add_parser("cancel", help="ask jobs to stop; a running local one saves a checkpoint first")
    p.add_argument("jobs", nargs="*", metavar="ID", help="job ids, or `last`; the id of an array for all its tasks")
    p.add_argument("--experiment", metavar="NAME", help="every job of this experiment that waits or runs")
    p.add_argument("--save", action="store_true", help="SLURM jobs that run save a checkpoint first; waits up to 60 s")
    p.add_argument(
        "--yes", action="store_true", help="do not ask, however many jobs there are (more than ten: it asks)"
    )
    _add_json(p)
    p.set_defaults(run=commands.cancel, rest="jobs")


def _add_wait(sub: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    p = sub.add_parser("wait", help="show jobs' progress until they end; their outcome is the exit code")
    p.add_argument("jobs", nargs="+", metavar="ID", help="job ids, or `last`")
    _add_json(p)
    p.set_defaults(run=commands.wait, rest="jobs")


def _add_ui(sub: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    p = sub.add_parser("ui", help="open this project's MLflow pages on 127.0.0.1")
    p.add_argument(
        "which",
        nargs="?",
        metavar="EXPERIMENT|ID",
        help="the experiment, or the job, whose page is named (default: newest)",
    )
    p.add_argument("--port", type=_positive, metavar="N", help="default: the first free one from 5000 on")
    p.add_argument("--print", action="store_true", dest="print_only", help="print the command instead of running it")
    p.set_defaults(run=after_sync(commands.ui))


def _add_looking(sub: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    p = sub.add_parser("eval", help="play games with a trained agent: win rates, a video; kept with its job")
    p.add_argument("target", metavar="JOB|CHECKPOINT|SPEC", help="a job id, `last`, a checkpoint, or an untrained spec")
    p.add_argument(
        "--opponent",
        action="extend",
        nargs="+",
        metavar="NAME",
        help="weak, strong, random, none, job ids or checkpoints (behind the target). Default: the spec's",
    )
    p.add_argument("--episodes", type=_positive, default=100, metavar="N", help="per opponent (default 100)")
    p.add_argument("--policy", action="store_true", help="the policy's actions, without planning; opponents likewise")
    p.add_argument(
        "--seed",
        type=_count,
        metavar="N",
        help="of the start states. Default: the training's own, whose evaluations began with the same ones",
    )
    p.add_argument("--video", metavar="FILE", help="film the first episode, as .mp4 or .gif")
    p.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (default auto)")
    _add_json(p)
    p.set_defaults(run=looking.evaluate)

    p = sub.add_parser("play", help="watch a trained agent in a window, or play against it")
    p.add_argument("target", metavar="JOB|CHECKPOINT", help="a job id, `last`, a checkpoint or a folder with one")
    p.add_argument(
        "--opponent",
        metavar="NAME",
        help="weak, strong, random, none, a job id or a checkpoint. Default: the spec's",
    )
    p.add_argument("--human", action="store_true", help="you play against it, with the keyboard")
    p.add_argument("--games", type=_positive, default=3, metavar="N", help="episodes (default 3)")
    p.add_argument("--policy", action="store_true", help="the policy's actions, without planning: quicker")
    p.add_argument("--seed", type=int, default=1, metavar="N", help="of the first game (default 1)")
    p.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (default auto)")
    p.set_defaults(run=looking.play)

    p = sub.add_parser("export", help="write a job's agent into a folder, without replay and optimizers")
    p.add_argument("target", metavar="JOB|CHECKPOINT", help="a job id, `last`, or a checkpoint")
    p.add_argument("folder", metavar="FOLDER", help="gets agent.pt and spec.yaml")
    p.add_argument("--force", action="store_true", help="replace what is there")
    p.add_argument(
        "--training",
        action="store_true",
        help="keep optimizers and running scale too, about twice the networks' size: for train.start_from",
    )
    p.set_defaults(run=looking.export)

    p = sub.add_parser("rewards", help="draw what a spec's reward shaping and backprop make of some games")
    p.add_argument("spec", metavar="SPEC")
    p.add_argument("overrides", nargs="*", metavar="key=value")
    p.add_argument("--player", default="strong", metavar="BOT", help="who plays for the agent (default strong)")
    p.add_argument("--phase", type=_positive, default=1, metavar="N", help="of a spec with phases (default 1)")
    p.add_argument(
        "--at", type=_count, default=0, metavar="EPISODE", help="training episode of the weights (default 0)"
    )
    p.add_argument("--episodes", type=_positive, default=30, metavar="N", help="played at most (default 30)")
    p.add_argument("--out", metavar="FILE", help="picture: .png, .svg or .pdf (default NAME_rewards.png, here)")
    _add_json(p)
    p.set_defaults(run=looking.rewards, rest="overrides")


def _add_spec_commands(sub: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    p = sub.add_parser("describe", help="print a spec's networks, parameter counts, optimizers and planner")
    _add_spec_and_sizes(p)
    p.set_defaults(run=commands.describe, rest="overrides")

    p = sub.add_parser(
        "check",
        help="what a submit checks first: spec, environment, one plan and one update of the agent, memory, cluster",
    )
    _add_spec_and_sizes(p)
    _add_profile(p)
    p.add_argument(
        "--cluster",
        choices=["auto", "local", "slurm"],
        default="auto",
        help="where the job would run; auto: slurm where sbatch exists, else local",
    )
    p.set_defaults(run=preflight.check, rest="overrides")

    p = sub.add_parser(
        "doctor",
        help="check the installation (Python, packages, torch, SLURM, MLflow, git, disk), or how a job learns",
        description="Without JOB, check the installation. With it, read what the job measured of its agent, and say "
        "what looks wrong and which setting to look at; 1 when something does.",
    )
    p.add_argument("job", nargs="?", metavar="JOB", help="a job id, or `last`")
    _add_json(p)
    p.set_defaults(run=doctor.doctor)

    p = sub.add_parser(
        "bench",
        help="time plans, updates and environment steps, against what the machine's products reach",
        description="Time one plan and one update of a spec's agent, and of the reference agent at horizons 9 and 3 "
        "(18 observations, 4 actions, 10.7 million parameters), and say how long the spec's training would take.",
    )
    _add_spec_and_sizes(p, optional=True)
    p.add_argument("--repeats", type=_positive, default=10, metavar="N", help="timed calls of each (default 10)")
    p.add_argument("--no-reference", action="store_true", help="leave the reference agent out")
    p.set_defaults(run=commands.bench, rest="overrides")

    p = sub.add_parser("schema", help="print the JSON schema of a spec file, for completion in an editor")
    p.set_defaults(run=commands.schema)


def _add_spec_and_sizes(p: argparse.ArgumentParser, *, optional: bool = False) -> None:
    if optional:
        p.add_argument("spec", metavar="SPEC", nargs="?")
    else:
        p.add_argument("spec", metavar="SPEC")
    p.add_argument("overrides", nargs="*", metavar="key=value")
    p.add_argument("--obs-dim", type=int, metavar="N", help="observation size, instead of making the environment")
    p.add_argument("--action-dim", type=int, metavar="M", help="action size, instead of making the environment")
    _add_json(p)


def _add_profile(p: argparse.ArgumentParser) -> None:
    p.add_argument("--profile", metavar="NAME", help="profile of clusters.yaml: the same as slurm.profile=NAME")


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not at least 1")
    return value


def _count(text: str) -> int:
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"{text} is below 0")
    return value


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The parsed command line. Overrides may stand after options: `submit a.yaml --wait train.seed=2`.

    argparse reads a command's positional words in one run only; what comes later is handed back to it here.
    """
    parser = build_parser()
    arguments, later = parser.parse_known_args(argv)
    if later:
        rest = getattr(arguments, "rest", None)
        if rest is None or any(word.startswith("-") for word in later):
            parser.error(f"not understood: {' '.join(later)} (see tdmpc-lab {arguments.command} --help)")
        getattr(arguments, rest).extend(later)
    for name in ("words", "overrides"):  # not paths: those are found by their bytes
        if words := getattr(arguments, name, None):
            setattr(arguments, name, [as_typed(word) if "=" in word else word for word in words])
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

    if known := foreign_job(job_id):
        print(f"       {known}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
