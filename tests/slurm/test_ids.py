"""The id that a new job gets: read from whatever sbatch prints, and refused where the project had such a job before."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator

import pytest
from slurm_fixtures import Lab, stand_in

HELD = ("--cluster", "slurm", "--skip-preflight", "--again")
WORDS = "the user's own words\n"


def sbatch(lab: Lab, *options: str) -> str:
    """A job that waits, submitted past the tool."""
    words = ("sbatch", "--parsable", f"--chdir={lab.root}", "--output=/dev/null", *options, "--wrap=true")
    return lab.slurm(*words).strip()


@pytest.fixture
def other(lab: Lab) -> Iterator[str]:
    """A job of the same user that is none of the project's business."""
    job = sbatch(lab, "--begin=now+1hour")
    yield job
    shown = lab.slurm("scontrol", "show", "job", job)
    assert "JobState=PENDING" in shown
    assert "Reason=BeginTime" in shown  # neither held nor made to begin now


def test_an_id_that_the_project_had_before(lab: Lab) -> None:
    """SLURM's ids were reset: whatever the project has under the next ids stays as it is, words and all."""
    lab.project.jobs.mkdir()
    lab.project.notes.mkdir()
    last = int(sbatch(lab, "--begin=now+1hour"))
    kept = {}
    for number in range(last + 1, last + 40):  # other tests submit, too
        folder = lab.project.jobs / f"{number}{'_0' if number % 3 == 1 else ''}"
        if number % 3 != 2:  # two of three have their folder still, one of them as a task of an array
            folder.mkdir()
            kept[folder / "job.json"] = "{}"
        kept[lab.project.notes / f"{folder.name}.md"] = WORDS
    for path, text in kept.items():
        path.write_text(text)
    for words in ((), ("sweep={train.seed: [0, 1]}",), ()):
        done = lab.run("submit", "experiments/quick.yaml", *words, *HELD, code=1)
        assert "exists already" in done.stderr
        assert "nothing was changed" in done.stderr
        assert lab.queue() == [str(last)]
    there = [p for folder in (lab.project.jobs, lab.project.notes) for p in folder.rglob("*") if p.is_file()]
    assert {p: p.read_text() for p in there if p.name == "job.json" or p.suffix == ".md"} == kept


def test_a_job_that_only_has_the_id_of_an_old_one(make_lab: Callable[..., Lab]) -> None:
    """After SLURM's ids were reset: what waits now is not the old job, and is not cancelled in its place."""
    lab, old = make_lab(), make_lab()
    waits = ("slurm.time=0:16:00", "name=new")
    job = lab.submit("experiments/quick.yaml", *waits)
    shutil.copytree(lab.paths(job).folder, old.paths(job).folder, symlinks=True)
    record = old.paths(job).record
    record.write_text(record.read_text().replace('"experiment": "new"', '"experiment": "old"'))
    assert lab.status(job)["state"] == "PENDING"
    assert old.status(job)["state"] == "UNKNOWN"
    assert "nothing to cancel" in old.run("cancel", job).stdout
    assert lab.queue() == [job]
    shutil.move(lab.root, lab.root.with_name("moved"))  # a project that was moved is still itself
    record.write_text(record.read_text().replace('"experiment": "old"', '"experiment": "new"'))
    assert old.status(job)["state"] == "PENDING"


def test_a_note_in_which_somebody_wrote_is_kept(lab: Lab) -> None:
    """The submit fails at its last moment, when the note is there and has got its first words already."""
    write = f"for note in {lab.project.notes}/[0-9]*.md; do echo 'my words' >> $note; done"
    path = stand_in(lab, "scontrol", f'if [ "$1" = release ]; then {write}; exit 1; fi\nexec "$real" "$@"')
    lab.run("submit", "experiments/quick.yaml", *HELD, code=2, PATH=path)
    assert lab.queue() == []
    assert [p.name for p in lab.project.jobs.iterdir() if p.name.isdecimal()] == []
    (note,) = lab.project.notes.glob("[0-9]*.md")
    assert note.read_text().endswith("my words\n")


@pytest.mark.parametrize(
    "script",
    [
        'echo "This job OTHER SU of 1000 SU left"\nexec "$real" "$@"',
        '"$real" "$@" || exit\necho "Submitted batch job OTHER, said the banner; job OTHER costs 12 SU"',
        '"$real" "$@" | sed "s/[^0-9]*//"',  # the number alone, whatever the real one prints
        'echo OTHER\nshift\nexec "$real" "$@"',  # does not pass --parsable on, and a line that looks like an id
        'exec "$real" "$@" > /dev/null',
        'echo OTHER\n"$real" "$@" | sed "s/.*/Your job & was queued/"',  # the only line that looks like an id is none
        '"$real" "$@"; exit 1',  # the job is taken, whatever the wrapper says
        '"$real" "$@" > /dev/null; echo "sbatch: error: Socket timed out on send/recv operation" >&2; exit 1',
    ],
)
def test_what_sbatch_prints(script: str, other: str, lab: Lab) -> None:
    """Banners of a site's wrapper, before and after, or only a number: the job is known by its id and nobody else's
    job is touched."""
    path = stand_in(lab, "sbatch", script.replace("OTHER", other))
    waits = "slurm.time=0:16:00"  # longer than the partition's limit
    done = lab.run("submit", "experiments/quick.yaml", waits, *HELD, "--json", PATH=path)
    (job,) = json.loads(done.stdout)["jobs"]
    assert sorted(lab.queue()) == sorted([job["id"], other])
    assert lab.paths(job["id"]).record.exists()


def test_an_answer_without_a_job(other: str, lab: Lab) -> None:
    """Nothing was submitted, whatever is printed: no id is guessed, and nothing acted on."""
    path = stand_in(lab, "sbatch", f'echo "job {other}"; echo "{other};elsewhere"')
    done = lab.run("submit", "experiments/quick.yaml", *HELD, code=3, PATH=path)
    assert (
        f"sbatch gave an answer without a job id, and no job of this submit is in the queue; it says: job {other}"
        in (done.stderr)
    )
    assert lab.queue() == [other]
