"""`export`: a job's agent in a folder of its own, small enough to hand on."""

from __future__ import annotations

from pathlib import Path

from tdmpc_lab.app.agent_paths import AGENT
from tdmpc_lab.app.opponents import find_checkpoint
from tdmpc_lab.errors import UsageError
from tdmpc_lab.files import write_atomic
from tdmpc_lab.jobs.paths import Project
from tdmpc_lab.sharing import own_umask_outside

SPEC = "spec.yaml"


def export_agent(project: Project, target: str, folder: Path, *, force: bool) -> tuple[Path, int]:
    """Write `agent.pt`, the networks without replay and optimizers, and the `spec.yaml` they were made of.

    `target` is a job id or a checkpoint's path. `eval`, `play` and `env.opponent` take the folder or the file.
    Returns the file and the agent's training steps.

    Raises:
        UsageError: no such agent; there is one in the folder already and it is not to be replaced (`force`).
        CheckpointError: it can't be read.
    """
    from tdmpc_lab.config.serialize import dump_yaml
    from tdmpc_lab.training.load import load_agent, save_copy

    path = folder / AGENT
    if path.exists() and not force:
        raise UsageError(f"{path} is there already: give another folder, or --force to replace it")
    loaded = load_agent(find_checkpoint(project, target), device="cpu")
    spec = dump_yaml(loaded.spec)  # that of an older version in the form of this one
    with own_umask_outside(folder):
        save_copy(path, loaded.agent, {**loaded.made_of, "spec": spec}, loaded.step)
        write_atomic(folder / SPEC, spec)
    return path, loaded.step
