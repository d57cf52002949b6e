"""Finding specs and checking them as far as can be done before anything is submitted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tdmpc_lab.config.diff import diff
from tdmpc_lab.config.loader import LoadedSpec, load_resolved, load_spec
from tdmpc_lab.config.schema import EnvConfig, Spec
from tdmpc_lab.errors import EnvironmentSpecError, LabError, Problem, RecordError, SpecError, UsageError
from tdmpc_lab.jobs.ids import is_job_id
from tdmpc_lab.jobs.paths import Project
from tdmpc_lab.jobs.record import read_record


@dataclass(frozen=True)
class Dimensions:
    """What an agent has to know of its environment."""

    observation: int
    action: int
    episode_length: int


def find_spec(project: Project, text: str) -> Path:
    """The spec file meant by `text`: a path from the working directory, else from the project's root."""
    path = Path(text)
    if not path.is_absolute() and not path.exists() and (project.root / path).exists():
        return project.root / path
    return path


def split_arguments(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Spec files and `key=value` overrides, told apart by the `=`.

    Raises:
        UsageError: no spec is among them.
    """
    overrides = [word for word in words if "=" in word and not Path(word).exists()]
    specs = [word for word in words if word not in overrides]
    if not specs:
        raise UsageError("no spec file given; for example: tdmpc-lab submit experiments/quickstart.yaml")
    return specs, overrides


def load_all(project: Project, specs: Sequence[str], overrides: Sequence[str]) -> list[LoadedSpec]:
    """Load every spec; the problems of all of them come in one error.

    Raises:
        SpecError: with every problem of every file.
    """
    loaded, problems = [], []
    for text in specs:
        try:
            loaded.append(load_spec(find_spec(project, text), overrides))
        except SpecError as error:
            problems += [p for p in error.problems if p not in problems]
    if problems:
        raise SpecError(problems)
    return loaded


def environment_dimensions(env: EnvConfig) -> Dimensions:
    """Make the environment once, to see that it can be made and how large it is.

    Raises:
        EnvironmentSpecError: it can't be made or is not supported.
    """
    from tdmpc_lab.envs import make_env

    made = make_env(env)
    try:
        return Dimensions(made.observation_dim, made.action_dim, made.episode_length)
    finally:
        made.close()


def check_environments(loaded: Sequence[LoadedSpec]) -> None:
    """See that each spec's environment can be made here, before a job has to find out.

    Raises:
        EnvironmentSpecError: naming the spec.
    """
    seen: dict[str, str] = {}
    for item in loaded:
        key = repr(item.spec.env)
        if key in seen:
            continue
        try:
            environment_dimensions(item.spec.env)
        except EnvironmentSpecError as error:
            raise EnvironmentSpecError(f"{item.path}: env: {error}") from error
        seen[key] = item.spec.name


def differences(project: Project, item: LoadedSpec) -> tuple[str, ...]:
    """What the spec changes against its `compare_to`, in words; nothing without one.

    Raises:
        SpecError: `compare_to` names neither a job, nor an experiment with jobs, nor a spec of the project.
    """
    wanted = item.spec.compare_to
    if wanted is None:
        return ()
    old = _comparison(project, item, wanted)
    return tuple(str(change) for change in diff(old, item.spec))


def _comparison(project: Project, item: LoadedSpec, wanted: str) -> Spec:
    """The spec meant by `compare_to`: a job's, else the newest job's of that experiment, else a file's."""
    ids = project.job_ids()
    if wanted in ids:
        return load_resolved(project.job(wanted).resolved)
    if not is_job_id(wanted):
        for job_id in reversed(ids):
            try:
                if read_record(project.job(job_id)).experiment == wanted:
                    return load_resolved(project.job(job_id).resolved)
            except (RecordError, SpecError):  # a damaged record is `status`'s to report; another will do here
                continue
        for folder in (item.path.parent, project.experiments):
            if (path := folder / f"{wanted}.yaml").exists():
                return load_spec(path).spec
    message = f"found {wanted!r}, which is neither a job, nor an experiment with jobs, nor a spec in experiments/"
    raise SpecError([Problem(file=str(item.path), line=None, key="compare_to", message=message)])


def resolve_dimensions(
    spec: Spec, observation_dim: int | None, action_dim: int | None, path: Path
) -> tuple[int, int, int | None]:
    """Observation and action sizes as given, or those of the environment; and its episode length if known.

    Raises:
        UsageError: one of the two is missing or not positive.
        EnvironmentSpecError: neither is given and the environment can't be made.
    """
    if observation_dim is not None and action_dim is not None:
        if observation_dim < 1 or action_dim < 1:
            raise UsageError("--obs-dim and --action-dim must be at least 1")
        return observation_dim, action_dim, spec.env.max_episode_steps
    if observation_dim is not None or action_dim is not None:
        raise UsageError("give both --obs-dim and --action-dim, or neither (then the environment is asked)")
    try:
        found = environment_dimensions(spec.env)
    except LabError as error:
        raise EnvironmentSpecError(
            f"{path}: env: {error}\nwithout the environment, give its sizes: --obs-dim N --action-dim M"
        ) from error
    return found.observation, found.action, found.episode_length
