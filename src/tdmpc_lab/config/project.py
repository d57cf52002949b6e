"""Files beside the specs that hold for all jobs of a project. Each, and every key, may be left out.

`tdmpc-lab.yaml`, where MLflow is:

```yaml
tracking:
  uri: http://mlflow.lab:5000    # where MLflow is; MLFLOW_TRACKING_URI comes before it
  slurm_jobs: later              # live: SLURM jobs send their values themselves; later: sync and ui do it
```

Profiles of `clusters.yaml`, what a job asks SLURM for where its spec does not say:

```yaml
default: tcml            # the profile of specs that choose none: a name, or a profile of its own
tcml: {partition: day, gpus: "2080ti:1", setup: ["module load cuda"]}
```

Several files may hold profiles, a user's own before the project's; profiles of one name are merged key by key.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal

from tdmpc_lab.config.layers import Layer, holds, read_file, value_at
from tdmpc_lab.config.validation import validate_layer
from tdmpc_lab.errors import Problem, SpecError

FILE = "tdmpc-lab.yaml"
Sending = Literal["live", "later"]

_TRACKING = {"uri", "slurm_jobs"}
URI_HELP = "a server as in http://host:5000, or a file as in sqlite:///mlruns/mlflow.db"


@dataclass(frozen=True, kw_only=True)
class TrackingConfig:
    """Where MLflow is, and who sends it what."""

    uri: str | None = None
    """The store, as MLflow names it; a relative SQLite path is taken from the project's folder. Default: SQLite,
    `mlruns/mlflow.db`."""
    slurm_jobs: Sending | None = None
    """Who sends the values of SLURM jobs: themselves (`live`), or `sync` (`later`). Default: themselves where the
    store is a server; no SQLite file is written from many machines."""


def tracking_config(root: Path) -> TrackingConfig:
    """What the project at `root` has settled about MLflow. Raises SpecError with every problem of the file."""
    path = root / FILE
    if not path.exists():
        return TrackingConfig()
    # Only here: `status` asks too, and most projects have no such file.
    layer = read_file(path)
    _check(layer)
    if layer.problems:
        raise SpecError(layer.problems)
    return TrackingConfig(**layer.data.get("tracking", {}))


def _check(layer: Layer) -> None:
    _known(layer, (), layer.data, {"tracking"})
    tracking = layer.data.get("tracking", {})
    if not isinstance(tracking, dict):
        layer.report(("tracking",), f"found {tracking!r}; allowed: the keys {', '.join(sorted(_TRACKING))}")
        return
    _known(layer, ("tracking",), tracking, _TRACKING)
    uri, who = tracking.get("uri"), tracking.get("slurm_jobs")
    if uri is not None and not (isinstance(uri, str) and "://" in uri):
        layer.report(("tracking", "uri"), f"found {uri!r}; allowed: {URI_HELP}")
    if who not in (None, "live", "later"):
        layer.report(("tracking", "slurm_jobs"), f"found {who!r}; allowed: live, later")


def _known(layer: Layer, at: tuple[str, ...], data: dict[str, Any], known: set[str]) -> None:
    for key in data:
        if key not in known:
            near = get_close_matches(key, known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else ""
            layer.report((*at, key), f"no such key; allowed: {', '.join(sorted(known))}", hint)


PROFILES = "clusters.yaml"
DEFAULT = "default"
PROFILE = ("slurm", "profile")
_NOT_IN_PROFILES = {
    "profile": "a profile can't take over another one",
    "after": "which jobs to wait for is a matter of one submit: --after ID",
}


def profile_files(root: Path, environ: Mapping[str, str] = os.environ) -> tuple[Path, ...]:
    """Where profiles are looked for, the strongest first: the user's own file, then the project's."""
    config = environ.get("XDG_CONFIG_HOME") or str(Path(environ.get("HOME") or "~").expanduser() / ".config")
    return Path(config) / "tdmpc-lab" / PROFILES, root / PROFILES


def profile_of(layers: Sequence[Layer], files: Sequence[Path]) -> list[Layer]:
    """The validated layers of the profile that a spec's layers choose; a wrong name is told where it stands."""
    documents = read_profiles(files)
    unreadable = [document for document in documents if document.incomplete]
    if not files or unreadable:
        return unreadable
    home = choosing_layer(layers)
    name = value_at(home.data, PROFILE) if home else default_name(documents)
    if name is None:
        return []
    if name in profile_names(documents):
        return profile_layers(documents, name)
    message, hint = no_such_profile(str(name), files, profile_names(documents))
    if home is not None:
        home.report(PROFILE, message, hint)
        return []
    named = default_home(documents)
    assert named is not None
    wrong = Layer(named.source, lines=named.lines)
    wrong.report((DEFAULT,), message, hint)
    return [wrong]


def check_profiles(files: Sequence[Path]) -> list[str]:
    """Validate every profile of the files and give their names. Raises SpecError with every problem found."""
    documents = read_profiles(files)
    problems = [p for document in documents if document.incomplete for p in document.problems]
    names = profile_names(documents)
    for name in names:
        for layer in profile_layers(documents, name):
            problems += [p for p in layer.problems if p not in problems]
    home, default = default_home(documents), default_name(documents)
    if home is not None and default not in names:
        message, hint = no_such_profile(str(default), files, names)
        home.report((DEFAULT,), message, hint)
        problems.append(home.problems[-1])
    if problems:
        raise SpecError(problems)
    return names


def read_profiles(files: Sequence[Path]) -> list[Layer]:
    """The files that exist, each as a layer with one key per profile."""
    return [layer for path in files if path.exists() for layer in [read_file(path)]]


def profile_names(documents: Sequence[Layer]) -> list[str]:
    """The profiles of all files, without repeating a name; `default` is none where it names another."""
    found = dict.fromkeys(name for document in documents for name in document.data)
    if default_name(documents) != DEFAULT:
        found.pop(DEFAULT, None)
    return list(found)


def choosing_layer(layers: Sequence[Layer]) -> Layer | None:
    """The layer of a spec that says which profile is used (`null`: none), the strongest first; None: no one does."""
    return next((layer for layer in layers if holds(layer.data, PROFILE)), None)


def default_name(documents: Sequence[Layer]) -> str | None:
    """The profile of specs that choose none: what `default` names, or `default` itself where it is a profile."""
    home = default_home(documents)
    if home is None:
        return None
    value = home.data[DEFAULT]
    return value if isinstance(value, str) else DEFAULT


def default_home(documents: Sequence[Layer]) -> Layer | None:
    """The file whose `default` counts."""
    return next((document for document in documents if DEFAULT in document.data), None)


def profile_layers(documents: Sequence[Layer], name: str) -> list[Layer]:
    """A profile as it stands in each of the files, as values of a spec's `slurm` section; validated."""
    layers = []
    for document in documents:
        if document.incomplete:
            layers.append(document)
        elif name in document.data or document.is_broken((name,)):
            layer = _as_spec(document, name)
            validate_layer(layer)
            layer.problems = told_in_profile(layer.problems, name)
            layers.append(layer)
    return layers


def _as_spec(document: Layer, name: str) -> Layer:
    inside = {path[1:] for path in document.broken if path[:1] == (name,)}
    layer = Layer(
        document.source,
        data={"slurm": document.data.get(name)},
        lines={("slurm", *path[1:]): line for path, line in document.lines.items() if path[:1] == (name,)},
        raw={("slurm", *path[1:]): raw for path, raw in document.raw.items() if path[:1] == (name,)},
        problems=[p for p in document.problems if p.key == name or p.key.startswith(f"{name}.")],
        broken={("slurm", *path) for path in inside},
    )
    section = layer.data["slurm"]
    for key, reason in _NOT_IN_PROFILES.items():
        if isinstance(section, dict) and key in section:
            layer.report(("slurm", key), "not allowed in a profile", reason)
            section = {other: value for other, value in section.items() if other != key}
    if isinstance(section, dict):
        section = {"profile": name, **section}  # so that the resolved spec says which one it was
    layer.data = {"slurm": section}
    return layer


def told_in_profile(problems: Sequence[Problem], name: str) -> list[Problem]:
    """Problems of a profile under the key they have in `clusters.yaml`: `tcml.partition`."""
    return [
        replace(p, key=name + p.key.removeprefix("slurm")) if p.key.split(".")[0] == "slurm" else p for p in problems
    ]


def no_such_profile(name: str, files: Sequence[Path], known: Sequence[str]) -> tuple[str, str]:
    """What to say about a profile that is in no file, and what to do."""
    if not known:
        message = f"found {name!r}, but there are no profiles"
        return message, f"write them into {' or '.join(str(path) for path in reversed(files))}"
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]!r}?" if near else ""
    return f"found {name!r}; profiles in {PROFILES}: {', '.join(known)}", hint
