"""`ui`: the MLflow pages of this project's store, on this machine only."""

from __future__ import annotations

import getpass
import os
import shlex
import socket
from dataclasses import dataclass

from tdmpc_lab.errors import ExternalError
from tdmpc_lab.jobs.paths import Project

PORTS = range(5000, 5100)


@dataclass(frozen=True)
class UiCommand:
    """What to run, where to look, and how to get there from another machine."""

    command: list[str]
    url: str
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
    return UiCommand(ui_command(store_uri(project.root), project.root, chosen), f"http://127.0.0.1:{chosen}", tunnel)


def run_ui(project: Project, ui: UiCommand) -> None:
    """Become the MLflow server; returns only if that fails. Creates the store first where there is none yet.

    Raises OSError.
    """
    from tdmpc_lab.tracking.store import ensure_store, store_uri

    ensure_store(store_uri(project.root), project.root)
    os.execv(ui.command[0], ui.command)


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
