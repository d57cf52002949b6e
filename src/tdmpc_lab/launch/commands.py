"""Running SLURM's own commands, and what their refusals mean."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path

from tdmpc_lab.errors import ExternalError, UsageError
from tdmpc_lab.launch.process import clean_environment

_TIMEOUT_S = 60.0
_PING_S = 20.0
_CONFIGURATION = "/etc/slurm/slurm.conf"  # where most commands look without SLURM_CONF
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
    """Raises ExternalError when the command is missing or hangs, and when SLURM_CONF names no file that can be read:
    SLURM's commands try that again for a minute."""
    if problem := _named_in_vain():
        raise ExternalError(problem)
    timeout_s = _TIMEOUT_S if timeout_s is None else timeout_s
    try:
        return subprocess.run(
            words,
            env=clean_environment(os.environ),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
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
    if found := _named_in_vain():
        return found
    if Path(_CONFIGURATION).exists() or "SLURM_CONF" in os.environ or _names_controllers():
        return ""
    return _not_configured(f"SLURM_CONF is not set, and {_CONFIGURATION} is not there")


def _named_in_vain() -> str:
    """What is wrong with the file that SLURM_CONF names, "" where nothing is, or the variable is not set."""
    named = os.environ.get("SLURM_CONF")
    if named is None or (Path(named).is_file() and os.access(named, os.R_OK)):
        return ""
    what = "can't be read" if os.path.lexists(named) else "is not there"
    return _not_configured(f"SLURM_CONF names {named!r}, which {what}")


def _not_configured(found: str) -> str:
    return (
        f"SLURM's commands are on this machine, but no configuration of a cluster: {found}. Set SLURM_CONF to the "
        "cluster's slurm.conf, go to its login node, or run jobs here with --cluster local"
    )


def _names_controllers() -> bool:
    """Whether SLURM knows whom to ask, up or down: it may be built to look elsewhere, or to ask the name server."""
    try:
        return bool(run(["scontrol", "ping"], _PING_S).stdout.strip())
    except ExternalError:
        return True  # not known


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
