"""Paths and names behind which no agent is: what is there instead, and which agents are called much like it."""

from __future__ import annotations

import contextlib
import difflib
import os
from collections.abc import Sequence
from pathlib import Path

from tdmpc_lab.jobs.paths import JobPaths, Project

AGENT = "agent.pt"
"""The agent in a folder that `export` has made, beside its spec."""
_MODELS = "models"  # the project's folder for these
_SHOWN = 3
_ALLOWED = "allowed: a job id, a checkpoint (*.pt) or a folder with one"


def is_path(project: Project, text: str) -> bool:
    """Whether the text is meant as a file or folder, and not as the name of a job or a bot."""
    return os.sep in text or text.endswith(".pt") or any(place.exists() for place in (Path(text), project.root / text))


def trained_beside(spec: Path) -> Path | None:
    """The folder of a spec, where it holds the agent that was trained by it."""
    return spec.parent if (spec.parent / AGENT).is_file() else None


def no_agent(project: Project, text: str, no_job: str) -> str:
    """Why there is no agent at a path, or by a name, that is no job's either: `no_job` says that."""
    path = Path(text)
    for place in (path, project.root / path):
        if place.is_dir():
            return _of_folder(place, path)
    near = _near(project, path)
    hint = f"did you mean {' or '.join(near)}?" if near else ""
    if path.suffix == ".pt":
        return f"{text}: no such checkpoint; {hint or _ALLOWED}"
    if is_path(project, text):
        return f"{text}: no such file or folder; {hint or _ALLOWED}"
    if near:
        return f"{text!r} is neither a job id nor a file or folder; {hint}"
    return f"{no_job}; nor is there a file or folder of this name"


def spec_for_agent(text: str, spec: Path) -> str:
    """What to say of a spec in the place of an agent."""
    hint = _ALLOWED if trained_beside(spec) is None else f"did you mean {Path(text).with_name(AGENT)}?"
    return f"{text}: this is a spec, no agent; {hint}"


def _of_folder(place: Path, path: Path) -> str:
    if JobPaths(place).record.is_file():
        return f"{path}: this is the folder of a job; give its id: {place.resolve().name}"
    inside = [str(path / name) for name in _agents_in(place)]
    if not inside:
        return f"{path}: this folder holds no agent; {_ALLOWED}"
    more = f" and {len(inside) - _SHOWN} more" if len(inside) > _SHOWN else ""
    return f"{path}: this folder holds no agent itself; did you mean {' or '.join(inside[:_SHOWN])}{more}?"


def _near(project: Project, path: Path) -> list[str]:
    """Agents whose paths are like this one, and those in the project's models that are called so."""
    found: dict[Path, str] = {}
    for base in (Path(), project.root):  # of an absolute path both are its own
        for near in _corrected(base, path):
            found.setdefault((base / near).resolve(), str(near))
    for near in _corrected(project.root, Path(_MODELS) / path.name):
        found.setdefault((project.root / near).resolve(), str(near))
    return list(found.values())[:_SHOWN]


def _corrected(base: Path, path: Path) -> list[Path]:
    """The path with every part that is not there replaced by the nearest that is, as far as agents are found so."""
    *folders, last = path.parts or ("",)
    here = Path()
    for part in folders:
        if not (base / here / part).is_dir():
            near = _close(part, [entry.name for entry in _entries(base / here) if entry.is_dir()])
            if not near:
                return []
            part = near[0]  # noqa: PLW2901
        here /= part
    close = _close(last, [entry.name for entry in _entries(base / here)])
    agents = [here / name for name in close if _is_agent(base / here / name)]
    return agents or [here / name / inner for name in close for inner in _agents_in(base / here / name)]


def _close(name: str, names: Sequence[str]) -> list[str]:
    return difflib.get_close_matches(name, names, n=_SHOWN)


def _agents_in(folder: Path) -> list[str]:
    """The names of the folders in this one that hold an agent."""
    return sorted(entry.name for entry in _entries(folder) if entry.is_dir() and _is_agent(entry))


def _is_agent(path: Path) -> bool:
    return path.suffix == ".pt" if path.is_file() else any(entry.suffix == ".pt" for entry in _entries(path))


def _entries(folder: Path) -> list[Path]:
    """What is in a folder; nothing where it is none, or can't be looked into."""
    with contextlib.suppress(OSError):
        return sorted(folder.iterdir())
    return []
