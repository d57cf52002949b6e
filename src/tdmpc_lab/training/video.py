"""Videos of episodes, H.264 in MP4 or GIF, by PyAV."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tdmpc_lab.errors import TrainingError
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
