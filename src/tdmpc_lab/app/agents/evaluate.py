"""`eval`: play games with a trained agent, and keep what came of it with its job."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tdmpc_lab.app.agents.opponents import (
    agent_files,
    check_option,
    find_checkpoint,
    job_of_checkpoint,
    told_of_option,
    trained_beside,
)
from tdmpc_lab.app.joblog.write import mlflow_description, write_note
from tdmpc_lab.app.mlflow.mirror import add_evaluation
from tdmpc_lab.app.submit.specs import find_spec
from tdmpc_lab.config.loader import load_spec
from tdmpc_lab.config.phases import Mode
from tdmpc_lab.config.schema import EvalConfig, Spec
from tdmpc_lab.config.serialize import dump_yaml
from tdmpc_lab.errors import CheckpointError, EnvironmentSpecError, LabError, TrainingError, UsageError
from tdmpc_lab.files import append_jsonl
from tdmpc_lab.jobs.paths import JobPaths, Project
from tdmpc_lab.sharing import own_umask_outside

if TYPE_CHECKING:
    from tdmpc_lab.training.evaluate import Evaluation, Evaluator
    from tdmpc_lab.training.load import LoadedAgent


SIDE_BY_SIDE = 32


@dataclass(frozen=True)
class Target:
    """What is evaluated: an agent, and the job it belongs to if it does."""

    loaded: LoadedAgent
    job: JobPaths | None
    words: str


@dataclass(frozen=True)
class EvalReport:
    """What an evaluation found: one row per opponent."""

    target: Target
    rows: list[dict[str, Any]]
    video: Path | None

    def as_dict(self) -> dict[str, Any]:
        """For scripts."""
        return {
            "job": None if self.target.job is None else self.target.job.id,
            "agent": self.target.words,
            "rows": self.rows,
            "video": None if self.video is None else str(self.video),
        }


def evaluate(
    project: Project,
    target: str,
    *,
    opponents: Sequence[str],
    episodes: int,
    mode: Mode,
    seed: int | None,
    video: Path | None,
    device: str,
    progress: Callable[[int, int], None],
) -> EvalReport:
    """Play `episodes` episodes with an agent (against each opponent, from both sides in turn) and report.

    The start states are by `seed`; without one by the seed of its training, whose evaluations were played from the
    first of them. `target` is a job id, a checkpoint's path, or a spec for its agent before any training. What was
    found for a job lands in its folder, its note and its MLflow run; troubles of the last two are told and lose
    nothing.

    Raises:
        UsageError: no such job, checkpoint or spec; an opponent that is not known, or for an environment without any.
        CheckpointError, EnvironmentSpecError: an agent can't be read, or plays another game.
        TrainingError: an environment fails, or the video can't be made.
    """
    if video is not None:
        _check_video_path(video)
    found = load_target(project, target, device)
    problem = "" if video is None else _filming_problem(found.loaded.spec)
    seed = found.loaded.spec.train.seed if seed is None else seed
    evaluator = _evaluator(project, found, opponents, episodes, mode, seed, device)
    with told_of_option(given=bool(opponents)):
        evaluation = evaluator.run(found.loaded.agent, film=video is not None and not problem, progress=progress)
    assert evaluation is not None  # nobody stops it
    rows = _rows(evaluation, found, mode, seed)
    if found.job is not None:
        for row in rows:
            append_jsonl(found.job.evals, row)
        _tell(project, found.job, rows)
    if video is not None:  # last: a film that can't be made takes nothing away
        if problem:
            raise TrainingError(problem)
        _write_video(video, evaluation)
    return EvalReport(found, rows, video)


def load_target(project: Project, target: str, device: str, command: str = "eval") -> Target:
    """The agent meant by a job id, a checkpoint's path or a spec. Raises as `evaluate`.

    From here on torch has the threads that the agent's spec asks for. Of a spec beside an exported agent it is told by
    which `command` that agent is had.
    """
    from tdmpc_lab.training.build import set_threads

    found = _find_target(project, target, device, command)
    set_threads(found.loaded.spec.train)
    return found


def _find_target(project: Project, target: str, device: str, command: str) -> Target:
    from tdmpc_lab.training.load import load_agent

    if target.endswith((".yaml", ".yml")):
        if (beside := trained_beside(find_spec(project, target))) is not None:
            again = shlex.join(["tdmpc-lab", command, str(beside)])
            print(f"hint: this is the untrained agent of {target}; the trained one beside it: {again}", file=sys.stderr)
        return Target(_untrained(project, target, device), None, f"the agent of {target} before any training")
    checkpoint = find_checkpoint(project, target).resolve()
    job = job_of_checkpoint(project, checkpoint)
    try:
        loaded = load_agent(checkpoint, device=device)
    except CheckpointError as error:
        older = [] if job is None or target.endswith(".pt") else sorted(job.checkpoints.glob("step_*.pt"))[:-1]
        if not older:
            raise
        print(f"warning: {error}; {older[-1].name} is evaluated instead", file=sys.stderr)
        loaded = load_agent(older[-1], device=device)
    words = f"{target} at step {loaded.step:,}" if job is None else f"{job.id} at step {loaded.step:,}"
    return Target(loaded, job, words)


def _untrained(project: Project, target: str, device: str) -> LoadedAgent:
    from tdmpc_lab.training.build import build_agent
    from tdmpc_lab.training.load import LoadedAgent
    from tdmpc_lab.training.worlds import made_of

    spec = load_spec(find_spec(project, target)).spec
    sizes = made_of(spec, dump_yaml(spec))
    spec = replace(spec, train=replace(spec.train, device=device))
    agent = build_agent(spec, sizes["observation_dim"], sizes["action_dim"], sizes["episode_length"])
    return LoadedAgent(agent, spec, 0, sizes)


def _evaluator(
    project: Project, target: Target, opponents: Sequence[str], episodes: int, mode: Mode, seed: int, device: str
) -> Evaluator:
    spec = target.loaded.spec
    spec = replace(spec, train=replace(spec.train, seed=seed))
    from tdmpc_lab.envs import has_opponents
    from tdmpc_lab.training.evaluate import Evaluator
    from tdmpc_lab.training.worlds import Worlds

    if opponents and not has_opponents(spec.env.id):
        raise UsageError(f"--opponent: '{spec.env.id}' is played alone; leave it out")
    for name in opponents:
        check_option(project, name)
    # the job was trained against the copies that it kept; who is named here is meant as of now
    worlds = Worlds(spec, agent_files(project, None if opponents else target.job), mode=mode, device=device)
    named = tuple(opponents) or (() if spec.eval is None else spec.eval.opponents)
    cases = worlds.cases(EvalConfig(episodes=episodes, opponents=named))
    return Evaluator(cases, seed=seed, mode=mode, side_by_side=SIDE_BY_SIDE)


def _rows(evaluation: Evaluation, target: Target, mode: Mode, seed: int) -> list[dict[str, Any]]:
    """One row per opponent; one in all without any."""
    common = {
        "time": datetime.now().astimezone().isoformat(timespec="seconds"),
        "step": target.loaded.step,
        "mode": mode,
        "seed": seed,
    }
    parts = [evaluation.against(name) for name in evaluation.opponents] or [evaluation]
    return [{**common, **part.row(), **part.by_side()} for part in parts]


def _filming_problem(spec: Spec) -> str:
    from tdmpc_lab.training.video import filming_problem

    return filming_problem(spec)


def _check_video_path(path: Path) -> None:
    if path.suffix not in (".mp4", ".gif"):
        raise UsageError(f"--video {path}: a video's name ends in .mp4 or .gif")
    folder = next(parent for parent in path.absolute().parents if parent.exists())
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        raise UsageError(f"--video {path}: {folder} is no folder that can be written to")


def _write_video(path: Path, evaluation: Evaluation) -> None:
    from tdmpc_lab.training.video import write_video

    if evaluation.film is None:
        raise EnvironmentSpecError("no video: the environment makes no pictures (render mode rgb_array)")
    with own_umask_outside(path):
        write_video(path, evaluation.film.frames, fps=evaluation.film.fps)


def _tell(project: Project, job: JobPaths, rows: Sequence[dict[str, Any]]) -> None:
    """Note and MLflow. The rows are safe in the job's folder, so trouble is only said."""
    try:
        note = write_note(project, job, None)
        problem = add_evaluation(project, job, rows, mlflow_description(job, None, note))
    except LabError as error:
        problem = str(error)
    if problem is not None:
        print(f"warning: {problem}; nothing is lost: the results are in {job.evals}", file=sys.stderr)
