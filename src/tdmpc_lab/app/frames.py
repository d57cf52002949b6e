"""Where an error was raised, as a person looks for it."""

from __future__ import annotations

import sysconfig
import traceback
from pathlib import Path

from tdmpc_lab.errors import LabError

_OTHERS = (*(sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib")), "<frozen ")


def last_frame(error: BaseException) -> str:
    """`moody_env.py:26 in step`: where an error that is not ours was raised, by the last frame that is no library's.

    Empty for an error of this package, which names the fault itself, and for one without a frame.
    """
    while error.__cause__ is not None:
        error = error.__cause__
    frames = traceback.extract_tb(error.__traceback__)
    if isinstance(error, LabError) or not frames:
        return ""
    own = [frame for frame in frames if not frame.filename.startswith(_OTHERS)]
    frame = (own or frames)[-1]
    return f"{_shown(Path(frame.filename))}:{frame.lineno} in {frame.name}"


def _shown(path: Path) -> str:
    """The path as the job sees it: from its working folder, which is that of its code."""
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else "/".join(path.parts[-2:])
