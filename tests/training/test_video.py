from __future__ import annotations

from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from memory_sink import MemorySink
from tdmpc_lab.config.loader import spec_from_dict
from tdmpc_lab.config.schema import Spec
from tdmpc_lab.errors import TrainingError
from tdmpc_lab.training.build import Places, build_trainer
from tdmpc_lab.training.video import VideoFolder, write_video

FRAMES = [np.full((48, 64, 3), 20 * n, dtype=np.uint8) for n in range(10)]


@pytest.mark.parametrize(("name", "codec", "count"), [("a.mp4", "h264", 10), ("a.gif", "gif", 5)])
def test_frames_come_out_again(tmp_path: Path, name: str, codec: str, count: int) -> None:
    write_video(tmp_path / "sub" / name, FRAMES, fps=50)
    assert [path.name for path in (tmp_path / "sub").iterdir()] == [name]
    with av.open(str(tmp_path / "sub" / name)) as container:
        stream = container.streams.video[0]
        assert stream.codec_context.name == codec
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]
    assert len(frames) == count
    assert frames[0].shape == (48, 64, 3)
    assert abs(int(frames[-1][0, 0, 0]) - (180 if codec == "h264" else 160)) < 40  # a palette of 256


def test_odd_sizes_lose_a_row(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", [np.zeros((49, 65, 3), dtype=np.uint8)] * 3)
    with av.open(str(tmp_path / "a.mp4")) as container:
        assert (container.streams.video[0].width, container.streams.video[0].height) == (64, 48)


def test_what_can_not_be_a_video_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"ends in \.mp4 or \.gif"):
        write_video(tmp_path / "a.avi", FRAMES)
    with pytest.raises(TrainingError, match="no frames"):
        write_video(tmp_path / "a.mp4", [])
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError):
        write_video(tmp_path / "file" / "a.mp4", FRAMES)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_the_first_evaluation_after_every_multiple_is_filmed(tmp_path: Path) -> None:
    videos = VideoFolder(tmp_path, 100)
    filmed = []
    for step in range(30, 331, 30):
        if videos.due(step):
            videos.save(step, FRAMES, 50)
            filmed.append(step)
    assert filmed == [120, 210, 300]


def filmed(last: int) -> Spec:
    return spec_from_dict(
        {
            "name": "filmed",
            "env": {"id": "odd_envs:Filmed-v0", "options": {"last": last}},
            "train": {"steps": 60, "seed_steps": 20, "batch_size": 4, "threads": 1, "device": "cpu"},
            "eval": {"every": 20, "episodes": 1, "video_every": 20},
        }
    )


@pytest.mark.parametrize("last", [2, 0])
def test_drawing_that_ends_the_process_ends_no_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, last: int
) -> None:
    """A display that is not there shows at the first picture, or only at the second: tried in another process."""
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "envs"))
    told: list[Any] = []
    trainer = build_trainer(
        filmed(last),
        sink=MemorySink(),
        places=Places(videos=tmp_path),
        on_event=lambda kind, fields: told.append((kind, fields["message"])),
    )
    if last == 0:
        assert (trainer.videos is not None, told) == (True, [])
    else:
        assert trainer.videos is None
        words = "no videos on this machine: to film 'odd_envs:Filmed-v0' was tried: its process was ended by SIGABRT"
        assert told == [("warning", words)]
