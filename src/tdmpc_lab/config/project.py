"""`tdmpc-lab.yaml` in the project's folder: what holds for all its jobs. The file, and every key, may be left out.

```yaml
tracking:
  uri: http://mlflow.lab:5000    # where MLflow is; MLFLOW_TRACKING_URI comes before it
  slurm_jobs: later              # live: SLURM jobs send their values themselves; later: sync, status and ui do it
```
"""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tdmpc_lab.errors import SpecError

if TYPE_CHECKING:
    from tdmpc_lab.config.layers import Layer

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
    from tdmpc_lab.config.layers import read_file

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
