"""Videos of episodes, H.264 in MP4 or GIF, by PyAV.

Whether an environment can be filmed is tried in a process of its own: `python -m tdmpc_lab.training.video SPEC`.

Pictures are drawn by libraries that end the process where there is no display, or hang, and at times only when they
draw for a second time. What ends that process ends no training.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tdmpc_lab.agent.child import ask
from tdmpc_lab.config.loader import load_resolved_text
from tdmpc_lab.config.schema import Spec
from tdmpc_lab.config.serialize import dump_yaml
from tdmpc_lab.envs import has_opponents, make_env
from tdmpc_lab.errors import LabError, SpecError, TrainingError
from tdmpc_lab.files import Guard
from tdmpc_lab.outputs import MADE_BY, mark_gif

Frame = NDArray[np.uint8]  # (height, width, 3)
FRAMES_PER_SECOND = 50
GIF_EVERY = 2  # browsers show no GIF quicker than some 30 frames a second
FORMATS = {".mp4": ("libx264", "yuv420p"), ".gif": ("gif", "rgb8")}


def write_video(path: Path, frames: Sequence[Frame], *, fps: int = FRAMES_PER_SECOND) -> None:
    """Write frames of one size as a video; the file's ending, `.mp4` or `.gif`, says which kind.

    The file appears when it is whole. Odd sizes lose their last row or column: H.264 needs even ones.

    Raises:
        TrainingError: no frames, another ending, or the encoder refuses.
        OSError: the file can't be written.
    """
    import av

    if path.suffix not in FORMATS:
        raise TrainingError(f"{path}: a video's name ends in {' or '.join(FORMATS)}")
    if not frames:
        raise TrainingError(f"{path}: there are no frames to write")
    codec, pixels = FORMATS[path.suffix]
    step = GIF_EVERY if path.suffix == ".gif" else 1
    height, width = (size - size % 2 for size in frames[0].shape[:2])
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.stem}.{os.getpid()}.partial{path.suffix}")
    try:
        with av.open(str(partial), "w") as container:
            container.metadata["comment"] = MADE_BY
            stream: Any = container.add_stream(codec, rate=max(1, fps // step))
            stream.width, stream.height, stream.pix_fmt = width, height, pixels
            for frame in frames[::step]:
                picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame[:height, :width]), format="rgb24")
                container.mux(stream.encode(picture))
            container.mux(stream.encode())
        if path.suffix == ".gif":  # the encoder writes no comment into these
            mark_gif(partial)
        partial.replace(path)
    except av.FFmpegError as error:
        raise TrainingError(f"{path}: the video could not be encoded: {error}") from error
    finally:
        partial.unlink(missing_ok=True)


class VideoFolder:
    """The videos of one training: one of the first evaluation at or after every `every` steps."""

    def __init__(self, folder: Path, every: int, guard: Guard = nullcontext) -> None:
        """`guard()` is entered around every write."""
        self.folder, self.every, self._guard = folder, every, guard
        self.last = 0  # step of the last one

    def due(self, step: int) -> bool:
        """Whether the evaluation at this step is to be filmed."""
        return step // self.every > self.last // self.every

    def save(self, step: int, frames: Sequence[Frame], fps: int) -> Path:
        """Write the video of the evaluation at `step`. Raises as `write_video`, and what the guard raises."""
        self.last = step
        path = self.folder / f"step_{step:09d}.mp4"
        with self._guard():
            write_video(path, frames, fps=fps)
        return path


GOOD = "good"
_EPISODES = 3  # each in an environment of its own, as in a training
_SEED = 1


def filming_problem(spec: Spec) -> str:
    """Why episodes of this spec can't be filmed here; "" where they can, or where no picture is drawn at all."""
    if has_opponents(spec.env.id):  # laser hockey draws by itself
        return ""
    said = ask(__name__, dump_yaml(spec))
    return "" if said == GOOD else f"no videos on this machine: to film '{spec.env.id}' was tried: {said}"


def _try(text: str) -> str:
    """`good`, or what went wrong."""
    try:
        spec = load_resolved_text(text, "spec")
        for _ in range(_EPISODES):
            try:
                env = make_env(spec.env, render_mode="rgb_array")
            except LabError:  # without the camera it may be made, or the training says what is wrong with it
                return GOOD
            try:
                env.reset(_SEED)
                env.render()
            finally:
                env.close()
    except (SpecError, TrainingError) as error:
        return " ".join(str(error).split())
    return GOOD


if __name__ == "__main__":
    print(f"\n{_try(sys.argv[1])}", flush=True)
    os._exit(0)  # what libraries do at the end of a process tells nothing of their pictures
