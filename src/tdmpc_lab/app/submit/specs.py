"""Finding specs and checking them as far as can be done before anything is submitted."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tdmpc_lab.app.agents.opponents import SCRIPTED, not_known, stand_in
from tdmpc_lab.config.diff import diff
from tdmpc_lab.config.loader import LoadedSpec, load_resolved, load_spec, load_sweep
from tdmpc_lab.config.phases import SELF, Phase, phases_of, split_mode
from tdmpc_lab.config.project import profile_files
from tdmpc_lab.config.schema import EnvConfig, RewardConfig, Spec
from tdmpc_lab.errors import EnvironmentSpecError, LabError, Problem, RecordError, SpecError, UsageError
from tdmpc_lab.jobs.find import job_ids
from tdmpc_lab.jobs.ids import is_job_id
from tdmpc_lab.jobs.paths import JobPaths, Project
from tdmpc_lab.jobs.record import read_record
from tdmpc_lab.text import count


@dataclass(frozen=True)
class Dimensions:
    """What an agent has to know of its environment."""

    observation: int
    action: int
    episode_length: int


@dataclass(frozen=True)
class SpecComparison:
    """A spec against its `compare_to`; empty without one."""

    diff: tuple[str, ...] = ()
    """What differs, in words."""
    job: str | None = None
    """The job that it was compared to; None where that was a spec without a job."""


def find_spec(project: Project, text: str) -> Path:
    """The spec file meant by `text`: a path from the working directory, else from the project's root.

    Raises:
        SpecError: there is none, but there is one of this name in `experiments/`. Any other file that can't be
            read is told by whoever reads it.
    """
    path = Path(text)
    if path.is_absolute() or path.exists():
        return path
    if (project.root / path).exists():
        return project.root / path
    for name in (text, f"{text}.yaml"):
        if (meant := project.experiments / name).is_file():
            hint = f"did you mean {meant.relative_to(project.root)}?"
            raise SpecError([Problem(file=text, line=None, key="", message="no such file", hint=hint)])
    return path


def split_arguments(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Spec files and `key=value` overrides, told apart by the `=`.

    Raises:
        UsageError: no spec is among them.
    """
    overrides = [word for word in words if "=" in word and not _exists(word)]
    specs = [word for word in words if word not in overrides]
    if not specs:
        raise UsageError("no spec file given; for example: tdmpc-lab submit experiments/quickstart.yaml")
    return specs, overrides


def _exists(word: str) -> bool:
    try:
        return Path(word).exists()
    except (OSError, ValueError):  # too long for the name of a file, as the values of a sweep may be
        return False


def load_all(project: Project, specs: Sequence[str], overrides: Sequence[str]) -> list[LoadedSpec]:
    """Load every spec, of a sweep every point; the problems of all of them come in one error.

    Raises:
        SpecError: with every problem of every file.
    """
    loaded: list[LoadedSpec] = []
    problems: list[Problem] = []
    profiles = profile_files(project.root)
    for text in specs:
        try:
            loaded += load_sweep(find_spec(project, text), overrides, profiles=profiles)
        except SpecError as error:
            problems += [p for p in error.problems if p not in problems]
    if problems:
        raise SpecError(problems)
    return loaded


def refuse_sweep(loaded: LoadedSpec, what: str) -> None:
    """Raise UsageError where a sweep was given for a job that is made out of one old job."""
    if loaded.point is not None:
        raise UsageError(
            f"one job is {what} as one job; leave {count(loaded.point.count, 'point')} for a submit of its spec"
        )


def environment_dimensions(env: EnvConfig) -> Dimensions:
    """Make the environment once, to see that it can be made and how large it is.

    Raises:
        EnvironmentSpecError: it can't be made or is not supported.
    """
    from tdmpc_lab.envs import make_env

    made = make_env(replace(env, opponent=None))  # who plays changes no size
    try:
        return Dimensions(made.observation_dim, made.action_dim, made.episode_length)
    finally:
        made.close()


def check_environments(project: Project, loaded: Sequence[LoadedSpec], frozen: JobPaths | None = None) -> None:
    """See that each spec's environment can be made here, in every phase, before a job has to find out.

    Opponents are looked for among the copies of the job `frozen` first.

    Raises:
        SpecError: with the problem of every spec whose environment can't be made or is not supported, whose
            opponents are not known, whose reward section asks for what the environment does not tell, or whose replay
            does not hold one episode, or whose batches can't be mirrored as they ask for.
    """
    tried: dict[str, int | LabError] = {}  # specs often share one environment, and making it may take seconds

    def look_at(env: EnvConfig, reward: RewardConfig) -> int | LabError:
        key = repr((env, reward))
        if key not in tried:
            tried[key] = _episode_length_or_error(project, env, reward, frozen)
        return tried[key]

    problems: dict[Problem, None] = {}
    for item in loaded:
        found = look_at(item.spec.env, item.spec.reward)
        if isinstance(found, LabError):
            problems[_environment_problem(item, found)] = None
            continue
        lengths = [found]
        for phase in phases_of(item.spec):  # what is wrong with the spec itself would be told again for each
            found = look_at(phase.env, phase.reward)
            if isinstance(found, LabError):
                problems[_phase_problem(item, phase, found)] = None
            else:
                lengths.append(found)
        for problem in (_replay_problem(item, max(lengths)), _mirror_problem(item)):
            if problem is not None:
                problems[problem] = None
        if (text := _evaluation_error(project, item.spec, frozen)) is not None:
            source, line = item.origin("eval.opponents")
            problems[Problem(file=source, line=line, key="eval.opponents", message=text)] = None
    if problems:
        raise SpecError(list(problems))


def _evaluation_error(project: Project, spec: Spec, frozen: JobPaths | None) -> str | None:
    """What is wrong with the opponents of the evaluation."""
    names = [] if spec.eval is None else spec.eval.opponents
    if not names:
        return None
    from tdmpc_lab.envs import has_opponents

    if not has_opponents(spec.env.id):
        return f"for laser hockey (env.id: hockey), and '{spec.env.id}' is another environment: leave it out"
    for name in names:
        if split_mode(name)[0] == SELF:
            return "found self; past copies change, so nothing could be compared: name a bot, a job or a checkpoint"
        try:
            known = name in SCRIPTED or stand_in(project, name, frozen) is not None
        except EnvironmentSpecError as error:
            return str(error)
        if not known:
            return f"opponent {name!r} {not_known(name)}"
    return None


def _replay_problem(item: LoadedSpec, episode_length: int) -> Problem | None:
    """An episode lies in the replay as a whole, with one slot more than it has steps."""
    key, capacity = "train.replay_capacity", item.spec.train.replay_capacity
    if capacity > episode_length:
        return None
    source, line = item.origin(key)
    message = f"found {capacity}, but an episode of {item.spec.env.id} has up to {episode_length} steps, kept whole"
    hint = f"at least {episode_length + 1}, or a smaller env.max_episode_steps"
    return Problem(file=source, line=line, key=key, message=message, hint=hint)


def _mirror_problem(item: LoadedSpec) -> Problem | None:
    """Batches can be mirrored where the environment declares a symmetry."""
    key, env = "train.mirror", item.spec.env
    if not item.spec.train.mirror:
        return None
    from tdmpc_lab.envs import make_env

    try:
        made = make_env(replace(env, opponent=None))
        try:
            message = "" if made.mirror_signs else f"found on, but {env.id} declares no mirror symmetry (mirror_signs)"
        finally:
            made.close()
    except LabError as error:
        message = str(error)
    source, line = item.origin(key)
    return Problem(file=source, line=line, key=key, message=message, hint="train.mirror: off") if message else None


def _episode_length_or_error(
    project: Project, env: EnvConfig, reward: RewardConfig, frozen: JobPaths | None
) -> int | LabError:
    from tdmpc_lab.envs import make_env
    from tdmpc_lab.training.rewards import check_reward_terms

    try:
        made = make_env(env, find_opponent=lambda name: stand_in(project, name, frozen))
        try:
            if reward.shaping is not None or reward.backprop is not None:
                check_reward_terms(made, env.id, reward)
            return made.episode_length
        finally:
            made.close()
    except LabError as error:
        return error


def _environment_problem(item: LoadedSpec, error: LabError) -> Problem:
    key, message = _key_and_message(item.spec.env, error)
    option = error.option if isinstance(error, EnvironmentSpecError) else ""
    source, line = item.origin(f"{key}.{option}" if option else key)  # it may stand elsewhere than the others
    return Problem(file=source, line=line, key=key, message=message)


def _phase_problem(item: LoadedSpec, phase: Phase, error: LabError) -> Problem:
    key, message = _key_and_message(phase.env, error)
    source, line = item.origin("phases")
    return Problem(file=source, line=line, key=f"phases.{phase.number - 1}.{key}", message=message)


def _key_and_message(env: EnvConfig, error: LabError) -> tuple[str, str]:
    """The key that an error of an environment is about, and what is said behind it."""
    if isinstance(error, EnvironmentSpecError) and error.key:
        return error.key, error.said
    return "env.options" if env.options else "env", str(error)


def differences(project: Project, loaded: Sequence[LoadedSpec]) -> list[tuple[str, ...]]:
    """What each spec changes against its `compare_to`, in words; nothing without one.

    Raises:
        SpecError: `compare_to` names neither a job, nor an experiment with jobs, nor a spec of the project.
    """
    return [comparison.diff for comparison in comparisons(project, loaded)]


def comparisons(
    project: Project, loaded: Sequence[LoadedSpec], *, leave_out: Collection[str] = ()
) -> list[SpecComparison]:
    """Each spec against its `compare_to`; jobs that are `leave_out` do not stand for their experiment. Raises SpecError
    like `differences`."""
    known: dict[tuple[Path, str], tuple[Spec, str | None]] = {}  # shared by the points of a sweep: reads all records
    found: list[SpecComparison] = []
    for item in loaded:
        wanted = item.spec.compare_to
        if wanted is None:
            found.append(SpecComparison())
            continue
        if (item.path, wanted) not in known:
            known[item.path, wanted] = _comparison(project, item, wanted, leave_out)
        spec, job = known[item.path, wanted]
        found.append(SpecComparison(tuple(str(change) for change in diff(spec, item.spec)), job))
    return found


def _comparison(project: Project, item: LoadedSpec, wanted: str, leave_out: Collection[str]) -> tuple[Spec, str | None]:
    """The spec meant by `compare_to`, and its job: a job's, else the newest job's of that experiment, else a file's."""
    ids = job_ids(project)
    if wanted in ids:
        return load_resolved(project.job(wanted).resolved), wanted
    if not is_job_id(wanted):
        for job_id in (job_id for job_id in reversed(ids) if job_id not in leave_out):
            try:
                if read_record(project.job(job_id)).experiment == wanted:
                    return load_resolved(project.job(job_id).resolved), job_id
            except (RecordError, SpecError):  # a damaged record is `status`'s to report; another will do here
                continue
        for folder in (item.path.parent, project.experiments):
            if (path := folder / f"{wanted}.yaml").exists():
                return load_spec(path).spec, None
    message = f"found {wanted!r}, which is neither a job, nor an experiment with jobs, nor a spec in experiments/"
    near = difflib.get_close_matches(wanted, _comparable(project, item), n=1)
    hint = f"did you mean {near[0]!r}?" if near else ""
    source, line = item.origin("compare_to")
    raise SpecError([Problem(file=source, line=line, key="compare_to", message=message, hint=hint)])


def _comparable(project: Project, item: LoadedSpec) -> list[str]:
    """The experiments that a spec can be compared to, by name."""
    names = {path.stem for folder in (item.path.parent, project.experiments) for path in folder.glob("*.yaml")}
    for job_id in job_ids(project):
        try:
            names.add(read_record(project.job(job_id)).experiment)
        except RecordError:  # a damaged record is `status`'s to report
            continue
    return sorted(names)


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
        key, message = _key_and_message(spec.env, error)
        raise EnvironmentSpecError(
            f"{path}: {key}: {message}\nwithout the environment, give its sizes: --obs-dim N --action-dim M"
        ) from error
    return found.observation, found.action, found.episode_length
