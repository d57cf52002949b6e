"""Running SLURM's own commands, and what their refusals mean."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path

from tdmpc_lab.errors import ExternalError, UsageError
from tdmpc_lab.launch.environment import clean_environment

_TIMEOUT_S = 60.0
# Where the commands look without SLURM_CONF, as they are built by distributions and from source; and sackd's copy.
_CONFIGURATIONS = (
    "/etc/slurm/slurm.conf", "/etc/slurm-llnl/slurm.conf", "/usr/local/etc/slurm.conf", "/run/slurm/conf/slurm.conf",
)  # fmt: skip
# What sbatch and its like say when it is not the job's fault.
_UNREACHABLE = re.compile(
    r"unable to contact slurm|connect failure|connection refused|timed out|unexpected message|"
    r"zero bytes were transmitted|munge|credential|could not establish|configuration source",
    re.IGNORECASE,
)


def command(words: Sequence[str], timeout_s: float | None = None) -> str:
    """What the command prints. Raises as `run`, and UsageError when SLURM refuses."""
    done = run(words, timeout_s)
    if done.returncode:
        raise refusal(words[0], done.stderr or done.stdout, " ".join(words[1:]))
    return done.stdout


def run(words: Sequence[str], timeout_s: float | None = None) -> subprocess.CompletedProcess[str]:
    """Raises ExternalError when the command is missing or hangs."""
    timeout_s = _TIMEOUT_S if timeout_s is None else timeout_s
    try:
        return subprocess.run(
            words,
            env=clean_environment(os.environ),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout_s,
            check=False,
        )
    except FileNotFoundError:
        raise ExternalError(f"{words[0]} is not on this machine; go to the cluster's login node") from None
    except subprocess.TimeoutExpired:
        raise ExternalError(f"{words[0]} gave no answer in {timeout_s:.0f} s; try again later") from None


def missing_configuration() -> str:
    """Why SLURM's commands can know of no cluster here, and what to do; "" where they may."""
    named = os.environ.get("SLURM_CONF")
    if named:
        if Path(named).is_file() and os.access(named, os.R_OK):
            return ""
        found = f"SLURM_CONF names {named}, which " + ("can't be read" if os.path.lexists(named) else "is not there")
    elif any(Path(path).exists() for path in _CONFIGURATIONS):
        return ""
    else:
        found = f"SLURM_CONF is not set, and {_CONFIGURATIONS[0]} is not there"
    return (
        f"SLURM's commands are on this machine, but no configuration of a cluster: {found}. Set SLURM_CONF to the "
        "cluster's slurm.conf, go to its login node, or run jobs here with --cluster local"
    )


def refusal(command: str, words: str, about: str) -> ExternalError | UsageError:
    """The error for what a SLURM command said, in its own words."""
    said = " / ".join(line.strip() for line in words.splitlines() if line.strip()) or "nothing"
    if _UNREACHABLE.search(said) and (missing := missing_configuration()):
        return ExternalError(missing)
    if _UNREACHABLE.search(said):
        return ExternalError(f"SLURM does not answer; try again later. {command} says: {said}")
    asked = f" ({about})" if about else ""
    hint = "; change the slurm section of the spec" if command == "sbatch" else ""
    return UsageError(f"{command} refused{asked}: {said}{hint}")
