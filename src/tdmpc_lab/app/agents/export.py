"""`export`: a job's agent in a folder of its own, small enough to hand on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tdmpc_lab.app.agents.opponents import AGENT, find_checkpoint
from tdmpc_lab.errors import UsageError
from tdmpc_lab.files import write_atomic
from tdmpc_lab.jobs.paths import Project
from tdmpc_lab.sharing import own_umask_outside

SPEC = "spec.yaml"


@dataclass(frozen=True)
class Exported:
    """What was written."""

    path: Path
    step: int
    """Environment steps that the agent was trained for."""
    size: int
    """Bytes of the file."""
    networks: int
    """Of these the networks', target included; the others are what only training needs."""


def export_agent(project: Project, target: str, folder: Path, *, force: bool, training: bool = False) -> Exported:
    """Write `agent.pt`, the networks without replay and optimizers, and the `spec.yaml` they were made of.

    With `training` the optimizers and the running scale too: what `train.start_from` continues with.
    `target` is a job id, `ID@STEP` or a checkpoint's path. `eval`, `play`, `env.opponent` and `train.start_from` take
    the folder or the file.

    Raises:
        UsageError: no such agent; there is one in the folder already and it is not to be replaced (`force`); it has no
            optimizers that could be kept.
        CheckpointError: it can't be read.
    """
    from tdmpc_lab.config.serialize import dump_yaml
    from tdmpc_lab.training.load import load_agent, save_copy

    path = folder / AGENT
    if path.exists() and not force:
        raise UsageError(f"{path} is there already: give another folder, or --force to replace it")
    checkpoint = find_checkpoint(project, target)
    loaded = load_agent(checkpoint, device="cpu", training=training)
    if training and not loaded.trains_on:
        raise UsageError(f"{checkpoint} holds networks alone, no optimizers and no running scale: leave --training out")
    spec = dump_yaml(loaded.spec)  # that of an older version in the form of this one
    with own_umask_outside(folder):
        save_copy(path, loaded.agent, {**loaded.made_of, "spec": spec}, loaded.step, training=training)
        write_atomic(folder / SPEC, spec)
    networks = sum(t.numel() * t.element_size() for t in loaded.agent.model.state_dict().values())
    return Exported(path, loaded.step, path.stat().st_size, networks)
