"""`eval` and `rewards` through the command line, opponents that are agents, the specs of `experiments/`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from tdmpc_lab.app.agents.evaluate import load_target
from tdmpc_lab.app.agents.opponents import agents_named, find_checkpoint, freeze_opponents
from tdmpc_lab.app.submit.specs import check_environments, load_all
from tdmpc_lab.cli.main import main
from tdmpc_lab.config.loader import load_spec
from tdmpc_lab.errors import UsageError
from tdmpc_lab.files import read_jsonl
from tdmpc_lab.jobs.find import job_ids
from tdmpc_lab.jobs.paths import Project

REPOSITORY = Path(__file__).resolve().parents[3]
HOCKEY = """\
about: a few games, to see everything move
env: {id: hockey, opponent: weak, max_episode_steps: 25}
reward: {shaping: on, backprop: on}
agent: {latent_dim: 16, hidden_dim: 16, hidden_layers: 1, termination_dim: 8, horizon: 3, q_heads: 2, bins: 21}
planner: {samples: 4, iterations: 1, elites: 2, policy_trajectories: 1}
train: {steps: 100, envs: 2, seed_steps: 60, batch_size: 4, log_every: 50, threads: 1, device: cpu}
eval: {every: 100, episodes: 2, video_every: 100}
"""

AGENTS = "a job id or the path of a checkpoint or of a folder with one"


@pytest.fixture
def lab(project: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    (project / "experiments" / "hockey.yaml").write_text(HOCKEY)
    monkeypatch.chdir(project)
    return Project(project)


@pytest.fixture
def job(lab: Project) -> str:
    assert main(["submit", "experiments/hockey.yaml", "--cluster", "debug"]) == 0
    (job_id,) = job_ids(lab)
    return job_id


def test_eval_of_a_job_lands_in_folder_note_and_mlflow(lab: Project, job: str, capsys: pytest.CaptureFixture[str]):
    capsys.readouterr()
    command = ["eval", job, "--episodes", "4", "--opponent", "weak", "strong"]
    assert main([*command, "--video", "film.gif", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["job"] == job and document["video"] == "film.gif"
    assert (lab.root / "film.gif").stat().st_size > 1000
    weak, strong = document["rows"]
    assert (weak["opponent"], strong["opponent"]) == ("weak", "strong")
    for row in (weak, strong):
        assert row["episodes"] == 4 and row["step"] == 100 and row["mode"] == "plan"
        assert row["win"] + row["draw"] + row["loss"] == pytest.approx(1)
        assert 0 <= row["win_low"] <= row["win"] <= row["win_high"] <= 1
        assert {"return_mean", "return_std", "win_starting", "win_receiving"} <= row.keys()
    assert read_jsonl(lab.job(job).evals)[0] == document["rows"]
    note = lab.note(job).read_text()
    assert "- evaluated at step 100 (planning, seed 1): win rate vs strong " in note
    assert "- video at step 100: `jobs/" in note

    from mlflow import MlflowClient

    from tdmpc_lab.app.submit.submit import run_id_of

    client = MlflowClient(f"sqlite:///{lab.mlruns / 'mlflow.db'}")
    run = client.get_run(run_id_of(lab.job(job)))
    assert run.data.metrics["later/win_strong"] == strong["win"]
    assert "evaluated at step 100" in run.data.tags["mlflow.note.content"]
    assert {item.path for item in client.list_artifacts(run.info.run_id)} >= {"video.mp4", "videos", "spec.yaml"}
    assert run.data.metrics.keys() >= {"eval/win", "train/return_shaped", "train/shaping_closeness"}


def test_eval_and_play_take_the_threads_of_the_training_and_tell_of_progress(
    lab: Project, job: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = torch.get_num_threads()
    capsys.readouterr()
    try:
        for target in (job, "experiments/hockey.yaml"):
            torch.set_num_threads(2)
            assert main(["eval", target, "--episodes", "4", "--json"]) == 0
            assert torch.get_num_threads() == 1
            lines = capsys.readouterr().err.splitlines()
            told = [line for line in lines if line.endswith("/4 episodes")]
            assert told[0] == "0/4 episodes" and told[-1] == "4/4 episodes"
        torch.set_num_threads(2)
        load_target(lab, job, "cpu", "play")
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)


def test_eval_twice_is_the_same_and_policy_only_is_another(lab: Project, job: str, capsys: pytest.CaptureFixture[str]):
    rows = []
    for extra in ([], [], ["--policy"], ["--seed", "1000"]):
        capsys.readouterr()
        assert main(["eval", "last", "--episodes", "4", "--json", *extra]) == 0
        (row,) = json.loads(capsys.readouterr().out)["rows"]
        row.pop("time")
        rows.append(row)
    assert rows[0] == rows[1]
    assert rows[2]["mode"] == "policy" and rows[2]["return_mean"] != rows[0]["return_mean"]
    assert rows[0]["seed"] == 1 and rows[3]["seed"] == 1000  # other start states
    assert rows[3]["return_mean"] != rows[0]["return_mean"]
    assert len(read_jsonl(lab.job(job).evals)[0]) == 4
    note = lab.note(job).read_text()
    assert "- evaluated at step 100 (planning, seed 1): " in note
    assert "- evaluated at step 100 (planning, seed 1000): " in note


def test_eval_of_a_checkpoint_and_of_an_untrained_spec(lab: Project, job: str, capsys: pytest.CaptureFixture[str]):
    (checkpoint,) = lab.job(job).checkpoints.glob("step_*.pt")
    (lab.root / "kept.pt").write_bytes(checkpoint.read_bytes())
    capsys.readouterr()
    for target, step in (("kept.pt", 100), ("experiments/hockey.yaml", 0)):
        assert main(["eval", target, "--episodes", "2", "--opponent", job, "--json"]) == 0
        document = json.loads(capsys.readouterr().out)
        assert document["job"] is None
        assert [(row["opponent"], row["step"]) for row in document["rows"]] == [(job, step)]
    assert not lab.job(job).evals.exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["eval", "JOB", "--opponent", "stron"], "did you mean 'strong'"),
        (["eval", "JOB", "--opponent", "self"], "name the job or the checkpoint"),
        (["eval", "JOB", "--opponent", "1971498"], "no job 1971498"),
        (["eval", "JOB", "--video", "film.avi"], ".mp4 or .gif"),
        (["eval", "JOB", "--video", "spec.pt/film.mp4"], "spec.pt is no folder that can be written to"),
        (["eval", "no.pt"], "no such checkpoint"),
        (["eval", "no.yaml"], "no such file"),
        (["eval", "spec.pt"], "can't be read as a checkpoint"),
        (
            ["rewards", "experiments/hockey.yaml", "--player", "stron"],
            "--player stron is not known: did you mean 'strong'",
        ),
        (["rewards", "experiments/hockey.yaml", "--player", "me"], "write one of weak, strong, random or none\n"),
        (["rewards", "experiments/hockey.yaml", "--out", "a.jpg"], ".png, .svg or .pdf"),
        (["rewards", "experiments/hockey.yaml", "reward.shapin=on"], "did you mean 'shaping'"),
    ],
)
def test_typical_mistakes_are_explained(lab: Project, job: str, capsys: pytest.CaptureFixture[str], arguments, words):
    (lab.root / "spec.pt").write_text("no checkpoint")
    before = sorted(path.name for path in lab.root.iterdir())
    assert main([job if word == "JOB" else word for word in arguments]) in (1, 2)
    assert words in capsys.readouterr().err
    assert sorted(path.name for path in lab.root.iterdir()) == before
    assert not lab.job(job).evals.exists()


def test_a_job_plays_against_the_agent_of_another_as_it_was_at_submit(lab: Project, job: str):
    words = [f"env.opponent={{{job}: 1, weak: 1}}", "eval.opponents=[]"]
    assert main(["submit", "experiments/hockey.yaml", *words, "--cluster", "debug"]) == 0
    second = job_ids(lab)[-1]
    (frozen,) = lab.job(second).opponents.iterdir()
    assert frozen.stat().st_size < next(lab.job(job).checkpoints.glob("step_*.pt")).stat().st_size
    rows, _ = read_jsonl(lab.job(second).metrics)
    assert {row["opponent"] for row in rows if "episode_length" in row} <= {job, "weak"}
    (evaluation,) = [row for row in rows if row["split"] == "eval"]
    assert evaluation["episodes"] == 4 and f"win_{job}" in evaluation and "win_weak" in evaluation


def test_a_job_keeps_its_opponents(lab: Project, job: str, capsys: pytest.CaptureFixture[str]):
    """The agent it played against is gone; evaluating, repeating and going on use the job's own copy."""
    (checkpoint,) = lab.job(job).checkpoints.glob("step_*.pt")
    checkpoint.rename(lab.root / "kept.pt")
    words = ["env.opponent=kept.pt", "--cluster", "debug"]
    assert main(["submit", "experiments/hockey.yaml", *words]) == 0
    second = job_ids(lab)[-1]
    (lab.root / "kept.pt").unlink()
    assert main(["eval", second, "--episodes", "2"]) == 0
    assert [row["opponent"] for row in read_jsonl(lab.job(second).evals)[0]] == ["kept.pt"]
    assert main(["resume", second, "--steps", "120", "--cluster", "debug"]) == 0
    capsys.readouterr()
    assert main(["resume", second, "--steps", "120", "phases=[{}]", "--cluster", "debug"]) == 2
    assert "can't change phases" in capsys.readouterr().err
    (copy,) = lab.job(second).opponents.iterdir()
    assert main(["eval", str(copy), "--episodes", "2", "--opponent", "weak", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["job"] is None  # it is another job's agent
    assert len(read_jsonl(lab.job(second).evals)[0]) == 1


def test_a_file_that_is_no_agent_is_found_before_the_job(lab: Project, capsys: pytest.CaptureFixture[str]):
    (lab.root / "spec.pt").write_text("no checkpoint")
    assert main(["submit", "experiments/hockey.yaml", "env.opponent=spec.pt", "--cluster", "local"]) == 2
    assert "env.opponent: 'spec.pt': spec.pt: can't be read as a checkpoint" in capsys.readouterr().err
    assert not job_ids(lab)


def test_a_torn_checkpoint_is_passed_over(lab: Project, job: str, capsys: pytest.CaptureFixture[str]):
    (lab.job(job).checkpoints / "step_000000120.pt").write_bytes(b"torn")
    assert main(["eval", job, "--episodes", "2", "--json"]) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out)["rows"][0]["step"] == 100
    assert "step_000000100.pt is evaluated instead" in captured.err


def test_rewards_of_a_phase(lab: Project, capsys: pytest.CaptureFixture[str]):
    words = ["reward.shaping=off", "reward.backprop=off", "phases=[{steps: 50, reward: {shaping: on}}, {}]"]
    assert main(["rewards", "experiments/hockey.yaml", *words, "--episodes", "1", "--json"]) == 0
    assert "shaping_touch" in json.loads(capsys.readouterr().out)["weights"]
    assert main(["rewards", "experiments/hockey.yaml", *words, "--episodes", "1", "--phase", "2", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["weights"] == {"scale": 1.0}
    assert main(["rewards", "experiments/hockey.yaml", *words, "--phase", "3"]) == 2


def test_an_opponent_that_is_not_there_is_found_before_the_job(lab: Project, capsys: pytest.CaptureFixture[str]):
    assert main(["submit", "experiments/hockey.yaml", "env.opponent=1971498", "--cluster", "local"]) == 2
    error = capsys.readouterr().err
    assert "command line: env.opponent: '1971498' is no agent: no job 1971498" in error
    assert not job_ids(lab)


def test_finding_checkpoints(lab: Project, job: str):
    (checkpoint,) = lab.job(job).checkpoints.glob("step_*.pt")
    assert find_checkpoint(lab, job) == checkpoint
    assert find_checkpoint(lab, str(checkpoint)) == checkpoint
    checkpoint.rename(lab.root / "kept.pt")
    assert find_checkpoint(lab, "kept.pt") == Path("kept.pt")
    with pytest.raises(UsageError, match="no checkpoint"):
        find_checkpoint(lab, job)
    spec = load_spec(lab.experiments / "hockey.yaml", ["env.opponent={kept.pt:plan: 1, weak: 1}"]).spec
    assert agents_named(spec) == ["kept.pt"]
    freeze_opponents(lab, spec, lab.job(job))
    assert len(list(lab.job(job).opponents.iterdir())) == 1


def test_rewards_draws_a_picture(lab: Project, capsys: pytest.CaptureFixture[str]):
    spec = ["rewards", "experiments/hockey.yaml", "env.max_episode_steps=null"]
    assert main([*spec, "--json", "--at", "200"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert (lab.root / "hockey_rewards.png").read_bytes().startswith(b"\x89PNG")
    assert shown["weights"]["shaping_closeness"] == pytest.approx(20 - 18.5 / 3)
    assert {row["outcome"] for row in shown["episodes"]} == {"won", "lost", "drawn"}
    for row in shown["episodes"]:
        assert (row["return_backprop"] > row["return_shaped"]) == (row["outcome"] == "won")
        assert row["return_shaped"] != row["return"]
    assert main([*spec, "reward.shaping=off", "--out", "some/where.svg"]) == 0
    assert "<svg" in (lab.root / "some" / "where.svg").read_text()
    assert "raw return" in capsys.readouterr().out


def test_every_spec_of_the_project_is_valid_and_its_environment_there():
    project = Project(REPOSITORY)
    specs = sorted(str(path) for path in project.experiments.glob("*.yaml"))
    loaded = load_all(project, specs, [])
    check_environments(project, loaded)
    by_name = {item.spec.name: item.spec for item in loaded}
    assert by_name["baseline"].agent.horizon == by_name["minimal_shaping"].agent.horizon == 18
    assert by_name["short_horizon"].agent.horizon == 5
    others = ("shaping_backprop", "noback_noshape", "backprop_noshape", "policy_head")
    assert {by_name[name].agent.horizon for name in others} == {9}
    switches = {
        name: (spec.reward.shaping is not None, spec.reward.backprop is not None) for name, spec in by_name.items()
    }
    assert switches["shaping_backprop"] == (True, True)
    assert switches["noback_noshape"] == switches["baseline"] == (False, False)
    assert switches["backprop_noshape"] == (False, True)
    assert switches["minimal_shaping"] == (True, False)
    assert by_name["policy_head"].agent.policy != by_name["reference"].agent.policy
    assert all(spec.about for spec in by_name.values())
    sweep = [item for item in loaded if item.spec.name == "shaping_x_backprop"]
    assert len(sweep) == 12
    combinations = {(s.spec.reward.shaping is None, s.spec.reward.backprop is None, s.spec.train.seed) for s in sweep}
    assert len(combinations) == 12


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["eval.opponents=[self]"], "command line: eval.opponents: found self; past copies change"),
        (["eval.opponents=[stron]"], "command line: eval.opponents: opponent 'stron' is not known: did you mean 'stro"),
        (
            ["eval.opponents=[nobody]"],
            f"opponent 'nobody' is not known: write one of weak, strong, random, none, {AGENTS}\n",
        ),
        (
            ["env.opponent=nobody"],
            "env.opponent: 'nobody' is not known: write one of weak, strong, random, none, self, a",
        ),
        (["phases=[{opponent: stron}]"], "command line: phases.0.env.opponent: 'stron' is not known: did you mean 'st"),
        (["env={id: Pendulum-v1, opponent: weak}", "reward={}"], "env.opponent: is for laser hockey"),
        (["env.id=Pendulum-v1", "env.opponent=null"], "reward.shaping: is for laser hockey"),
        (["env.id=Pendulum-v1", "env.opponent=null", "env.self_play=on"], "env.self_play: is for laser hockey"),
        (["env.id=hocky"], "did you mean 'hockey'"),
    ],
)
def test_what_only_hockey_has_is_checked_at_submit(lab: Project, capsys: pytest.CaptureFixture[str], words, expected):
    if words[0].startswith("env"):
        words = [*words, "eval.opponents=[]"]
    assert main(["submit", "experiments/hockey.yaml", *words, "--cluster", "local"]) == 2
    assert expected in capsys.readouterr().err
    assert not job_ids(lab)
