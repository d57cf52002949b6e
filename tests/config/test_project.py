"""`tdmpc-lab.yaml`: what it may say, and that every mistake in it is told with its line."""

from __future__ import annotations

from pathlib import Path

import pytest

from tdmpc_lab.config.project import FILE, TrackingConfig, tracking_config
from tdmpc_lab.errors import SpecError


def test_no_file_and_no_key_mean_the_defaults(tmp_path: Path) -> None:
    assert tracking_config(tmp_path) == TrackingConfig()
    (tmp_path / FILE).write_text("tracking: {}\n")
    assert tracking_config(tmp_path) == TrackingConfig()


def test_what_it_may_say(tmp_path: Path) -> None:
    (tmp_path / FILE).write_text("tracking:\n  uri: http://mlflow.lab:5000  # ours\n  slurm_jobs: later\n")
    assert tracking_config(tmp_path) == TrackingConfig(uri="http://mlflow.lab:5000", slurm_jobs="later")


def test_every_mistake_is_told_where_it_stands(tmp_path: Path) -> None:
    (tmp_path / FILE).write_text("traking: {}\ntracking:\n  uri: mlflow.lab\n  slurm_jobs: never\n  urn: x\n")
    with pytest.raises(SpecError) as caught:
        tracking_config(tmp_path)
    told = {(p.line, p.key) for p in caught.value.problems}
    assert told == {(1, "traking"), (3, "tracking.uri"), (4, "tracking.slurm_jobs"), (5, "tracking.urn")}
    text = str(caught.value)
    assert "did you mean 'tracking'?" in text
    assert "found 'mlflow.lab'; allowed: a server as in http://host:5000" in text
    assert "found 'never'; allowed: live, later" in text


@pytest.mark.parametrize("text", ["tracking: [a]\n", "tracking: http://x\n", "- tracking\n", "tracking: {uri: [\n", ""])
def test_what_is_no_mapping_is_an_error_of_the_file(text: str, tmp_path: Path) -> None:
    (tmp_path / FILE).write_text(text)
    with pytest.raises(SpecError, match=FILE):
        tracking_config(tmp_path)
