"""The commands of README and docs, typed into a project on the test cluster that has a job."""

from __future__ import annotations

import re
import shutil
import sys

import pytest
from slurm_fixtures import REPOSITORY, Lab

from tdmpc_lab.cli.main import main

sys.path.insert(0, str(REPOSITORY / "tests"))
from shown_commands import shown_commands

# Commands, or beginnings of commands, that are not run here, each with the reason; they are parsed in test_docs.py.
NOT_RUN = {
    "play": "opens a window, and is played by a user",
    "ui": "serves pages until it is ended; `--print` is run in test_cli.py",
    "bench": "measures for minutes, at full size",
    "eval": "plays hundreds of games with agents that were trained for hours",
    "doctor": "tells of the machine that it is on",
    "submit experiments/hockey_small.yaml": "trains for hours",
    "submit experiments/hockey_winner.yaml": "trains for hours",
    "submit experiments/dmc": "trains for hours",
    "submit experiments/questions": "trains for hours, several times",
    "submit SPEC --cluster debug": "trains in this process",
    "submit SPEC --wait": "trains for minutes; `wait` is run",
    "submit SPEC --profile": "waits for another job",
    "submit a.yaml": "files of the reader's own",
    "submit SPEC train.start_from=ID@STEP": "an agent of a step that the reader has",
    "init --shared --group": "a group of the reader's own",
    "submit tiny_sweep.yaml": "a file of the reader's own",
    "resume 3628466_1": "a job that has steps left",
    "cancel --save": "a job that runs",
    "compare small_": "experiments that were trained for hours",
    "compare hockey_winner": "an experiment that was trained for hours",
    "compare baseline": "experiments that were trained for hours",
    "note ID --edit": "opens an editor",
    "notes import": "a log of the reader's own",
    "notes export": "of an imported log",
    "notes --rollup --move": "for a roll-up that somebody has edited",
    "status --watch": "looks on until it is ended",
    "export last models/hockey": "into a folder of the repository",
    "sync": "of jobs of the reader's own",
}
# The same of commands that are not to be run just as they stand.
NOT_RUN_SO = {
    "compare NAME NAME --plot curves.png": "two experiments with jobs",
    "resume ID": "a job that has steps left",
    "verdict ID bad because … --cause agent.horizon=18": "a job that had this setting",
    "verdict JOB unclear": "the reason is left out on the page",
}
REFUSED = {  # shown because they are refused
    "submit experiments/quickstart.yaml agent.horzon=5 train.steps=-1",
    "submit experiments/reference.yaml slurm.extra.gres=gpu:2 slurm.extra.exclusiv=true",
    "submit experiments/reference.yaml slurm.partition=test slurm.gpus=A40000:1",
}


def _is_id(word: str) -> bool:
    return word in ("ID", "JOB") or re.fullmatch(r"[0-9]{7}(_[0-9]+)?", word) is not None


@pytest.mark.timeout(300)
def test_commands_that_can_run_here_run(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    job = lab.submit("experiments/quick.yaml")
    for spec in (REPOSITORY / "experiments").glob("*.yaml"):
        shutil.copy(spec, lab.project.experiments)
    shutil.copy(REPOSITORY / "clusters.yaml", lab.root)
    lab.wait_for(job, "COMPLETED")
    lab.wait_until_left(job)
    monkeypatch.chdir(lab.root)
    monkeypatch.syspath_prepend(str(lab.root))
    for name, value in lab.environ().items():
        monkeypatch.setenv(name, value)
    meant = {"SPEC": "experiments/quick.yaml", "NAME": "quick", "FOLDER": "agent", "FILE": "curve.png"}
    meant["last"] = job  # some of the commands submit, and what they submit has no agent yet
    ran, wrong, used = 0, [], set()
    for shown in shown_commands():
        words, line = shown.words, " ".join(shown.words)
        left = {start for start in NOT_RUN if f"{line} ".startswith(start)} | ({line} & NOT_RUN_SO.keys())
        if left:
            used |= left
            continue
        words = [meant.get(word, job if _is_id(word) else word) for word in words]
        if words[0] == "submit" and "slurm.partition=test" not in words:
            words += ["--dry-run", "--skip-preflight"]
        if words[0] == "rewards":  # of an environment with terms to shape
            words[1] = "experiments/shaping_backprop.yaml"
        code = main(words)
        told = capsys.readouterr()
        if code != (2 if line in REFUSED else 0):
            wrong.append(f"{shown.page}: {' '.join(words)}: {code}\n{told.out[-500:]}{told.err[-1500:]}")
        ran += 1
    assert not wrong, "\n".join(wrong)
    assert ran > 25
    known = NOT_RUN.keys() | NOT_RUN_SO.keys()
    assert used == known, f"no page shows: {known - used}"
