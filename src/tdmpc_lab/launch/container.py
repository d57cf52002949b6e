"""The command that runs the job's Python: this one, or that of a container's image. Pure."""

from __future__ import annotations

import os
import re
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path

from tdmpc_lab.config.schema import ContainerConfig, SlurmConfig

RUNTIMES = ("apptainer", "singularity")
_RUNTIME_VARIABLE = "TDMPC_LAB_CONTAINER"
_URI = re.compile(r"[a-z][a-z0-9+.-]*://")


def python_command(config: SlurmConfig, root: Path, environ: Mapping[str, str] = os.environ) -> str:
    """What is typed before `-m …` to start the job's Python, for a shell; `root` is the project's folder."""
    container = config.container
    if container is None:
        return shlex.quote(sys.executable)
    runtime = f'"${_RUNTIME_VARIABLE}"' if container.runtime == "auto" else container.runtime
    options = ["--nv"] if container.nv else []
    for bind in (*container.bind, str(root)):
        options += ["--bind", filled_in(bind, environ)]
    image = image_path(container, root, environ)
    return f"{runtime} exec {shlex.join([*options, image, container.python])}"


def container_setup(config: SlurmConfig) -> list[str]:
    """Shell lines that find the container's runtime on the node, after the lines of the spec (`module load …`)."""
    container = config.container
    if container is None:
        return []
    source = Path(__file__).resolve().parents[2]
    lines = []
    if source.name == "src":  # the image holds what the project depends on, the project itself is read from here
        lines.append(f'export PYTHONPATH={shlex.quote(str(source))}"${{PYTHONPATH:+:$PYTHONPATH}}"')
    if container.runtime == "auto":
        asked = " || ".join(f"command -v {name}" for name in RUNTIMES)
        complaint = f"neither {' nor '.join(RUNTIMES)} is on this node: load its module in slurm.setup"
        lines.append(f'{_RUNTIME_VARIABLE}=$({asked}) || {{ echo "{complaint}" >&2; exit 127; }}')
    return lines


def image_path(container: ContainerConfig, root: Path, environ: Mapping[str, str] = os.environ) -> str:
    """The image as an absolute path, or the URI that it is."""
    text = filled_in(container.image, environ)
    return text if is_uri(text) else str(root / text)


def is_uri(image: str) -> bool:
    """Whether the image is fetched from somewhere (`docker://…`) and is no file."""
    return _URI.match(image) is not None


def filled_in(text: str, environ: Mapping[str, str] = os.environ) -> str:
    """The text with `~` and `$NAME` of the shell that submits; names that are not set stay."""
    home = environ.get("HOME", "")
    if home and (text == "~" or text.startswith("~/")):
        text = home + text[1:]
    return re.sub(r"\$(\w+|\{\w+\})", lambda found: environ.get(found[1].strip("{}"), found[0]), text)
