"""Jobs with evaluations that were made up, as a submit and a training leave them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from tdmpc_lab.config.diff import group_hash
from tdmpc_lab.config.loader import spec_from_dict
from tdmpc_lab.config.serialize import dump_yaml
from tdmpc_lab.files import append_jsonl
from tdmpc_lab.jobs.find import folder_names
from tdmpc_lab.jobs.paths import JobPaths, Project
from tdmpc_lab.jobs.record import JobRecord, prepare_job

BEGIN = datetime.fromisoformat("2026-02-03T09:14:22+01:00")
SPEC: dict[str, Any] = {"env": {"id": "Pendulum-v1"}, "train": {"steps": 400, "seed": 1}, "eval": {"every": 100}}


def merged(base: Mapping[str, Any], key: str, value: Any) -> dict[str, Any]:
    """The nested values with one more, by its dotted key."""
    first, _, rest = key.partition(".")
    inside = base.get(first)
    return {**base, first: merged(inside if isinstance(inside, Mapping) else {}, rest, value) if rest else value}


def make_job(
    root: Any,
    job_id: str,
    experiment: str,
    seed: int,
    returns: Sequence[float] | Sequence[Mapping[str, Any]],
    *,
    settings: Mapping[str, Any] | None = None,
    outcome: str | None = "finished",
    every: int = 100,
    wall_s: float = 36.0,
    **record: Any,
) -> JobPaths:
    """A job whose evaluations, one every `every` steps and 36 s, found these returns (or have these values).

    `outcome` is the event that ended it; None for a job that left none. `settings` are values by dotted key.
    """
    values = merged({**SPEC, "name": experiment}, "train.seed", seed)
    for key, value in (settings or {}).items():
        values = merged(values, key, value)
    spec = spec_from_dict(values)

    def fill(new_id: str) -> JobRecord:
        known = {
            "id": new_id,
            "experiment": experiment,
            "env_id": spec.env.id,
            "group": group_hash(spec),
            "seed": seed,
            "cluster": "local",
            "spec_file": f"experiments/{experiment}.yaml",
            "submitted_at": (BEGIN + timedelta(minutes=len(list(folder_names(Project(root)))))).isoformat(),
            "steps_total": spec.train.steps,
            "snapshot": "5" * 16,
        }
        return JobRecord(**(known | record))

    paths = prepare_job(Project(root), job_id, "as written", dump_yaml(spec), fill)
    step = 0
    append_jsonl(paths.events, {"time": BEGIN.isoformat(), "event": "started", "attempt": 1, "host": "node1", "pid": 1})
    for place, value in enumerate(returns, start=1):
        step = place * every
        row = {"step": step, "split": "eval", "attempt": 1, "wall_s": place * wall_s, "episodes": 10}
        for split in ({**row, "split": "train", "loss/total": 1.0}, row):
            found = dict(value) if isinstance(value, Mapping) else {"return_mean": float(value)}
            append_jsonl(paths.metrics, split if split["split"] == "train" else {**split, **found})
    if outcome is not None:
        append_jsonl(paths.events, {"time": BEGIN.isoformat(), "event": outcome, "step": step, "attempt": 1})
    return paths


def games(won: float, opponent: str = "strong") -> dict[str, Any]:
    """What an evaluation of ten games against one opponent leaves."""
    return {"win": won, "draw": 0.0, "loss": 1 - won, "opponent": opponent, "return_mean": 20 * won - 10}


def games_of_two(weak: float, strong: float) -> dict[str, Any]:
    """What an evaluation of five games against each of two opponents leaves."""
    both = (weak + strong) / 2
    each = {f"{key}_{name}": share for name, won in (("weak", weak), ("strong", strong))
            for key, share in (("win", won), ("draw", 0.0), ("loss", 1 - won))}  # fmt: skip
    return {"win": both, "draw": 0.0, "loss": 1 - both, "return_mean": 0.0, **each}
