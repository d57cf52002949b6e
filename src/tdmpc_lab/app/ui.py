"""`ui`: the MLflow pages of this project's store, on this machine only."""

from __future__ import annotations

import getpass
import os
import shlex
import socket
from dataclasses import dataclass

from tdmpc_lab.errors import ExternalError, RecordError
from tdmpc_lab.jobs.events import read_events
from tdmpc_lab.jobs.paths import Project

PORTS = range(5000, 5100)
# Its job runner, for language models, costs several processes and seconds; what the user has set is kept.
SERVER_SETTINGS = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}


@dataclass(frozen=True)
class UiCommand:
    """What to run, where to look, and how to get there from another machine."""

    command: list[str]
    url: str
    """The page to open: the newest job's experiment where it is known. The server takes some seconds to answer."""
    tunnel: str

    def shell_line(self) -> str:
        """The command as one line for a shell."""
        return shlex.join(self.command)


def ui_for(project: Project, port: int | None) -> UiCommand:
    """The command for this project's store; a free port from 5000 on unless one is given.

    Raises:
        ExternalError: the port is taken.
    """
    from tdmpc_lab.tracking.store import store_uri, ui_command

    chosen = port if port is not None else next((p for p in PORTS if _is_free(p)), None)
    if chosen is None or not _is_free(chosen):
        wanted = f"port {port} is" if port is not None else f"all ports {PORTS.start}-{PORTS.stop - 1} are"
        raise ExternalError(f"{wanted} taken on 127.0.0.1; choose another with --port N")
    tunnel = f"ssh -N -L {chosen}:127.0.0.1:{chosen} {getpass.getuser()}@{socket.gethostname()}"
    uri = store_uri(project.root)
    return UiCommand(ui_command(uri, project.root, chosen), _page(project, uri, f"http://127.0.0.1:{chosen}"), tunnel)


def _page(project: Project, uri: str, base: str) -> str:
    """The runs of the experiment that the newest job in this store belongs to; `base` when there is none."""
    from tdmpc_lab.tracking.store import experiment_url, public_uri

    for job_id in reversed(project.job_ids()):
        try:
            events = read_events(project.job(job_id).events)
        except RecordError:  # `status` says what is wrong with it
            continue
        for event in reversed(events):
            here = event.get("event") == "tracking" and event.get("store") == public_uri(uri)
            if here and (experiment := event.get("experiment_id")):
                return experiment_url(base, str(experiment))
    return base


def run_ui(project: Project, ui: UiCommand) -> None:
    """Become the MLflow server; returns only if that fails. Creates the store first where there is none yet.

    Raises OSError.
    """
    from tdmpc_lab.tracking.store import ensure_store, store_uri

    ensure_store(store_uri(project.root), project.root)
    os.execve(ui.command[0], ui.command, {**SERVER_SETTINGS, **os.environ})


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
