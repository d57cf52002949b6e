"""`export` and `play`: an agent in a folder of its own, and its games in a window (SDL's dummy driver)."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from tdmpc_lab.agent import Agent
from tdmpc_lab.app.agents.opponents import SCRIPTED
from tdmpc_lab.cli.main import main
from tdmpc_lab.config.loader import load_resolved_text, load_spec
from tdmpc_lab.envs.hockey import OPPONENT_NAMES, HockeyEnv
from tdmpc_lab.envs.hockey.rendering import KeyboardPlayer
from tdmpc_lab.training.load import header, load_agent, save_copy

SPEC = """\
name: tiny
env: {id: hockey, opponent: strong, max_episode_steps: 20}
agent: {latent_dim: 16, hidden_dim: 16, hidden_layers: 1, termination_dim: 8, horizon: 3, q_heads: 2, bins: 21}
planner: {samples: 4, iterations: 1, elites: 2, policy_trajectories: 1, cuda_graph: off}  # of an older version
train: {threads: 1, device: cpu}
"""


@pytest.fixture
def checkpoint(project: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(project)
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    spec = load_resolved_text(SPEC, "spec")
    agent = Agent(18, 4, episode_length=20, agent=spec.agent, planner=spec.planner, seed=3, device="cpu")
    path = project / "step_000000070.pt"
    save_copy(path, agent, header(SPEC, 18, 4, 20), 70)
    return path


def test_an_exported_agent_is_the_same_agent(checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", str(checkpoint), "models/mine"]) == 0
    assert "at step 70" in capsys.readouterr().out
    assert load_spec("models/mine/spec.yaml").spec == load_resolved_text(SPEC, "spec")  # and can be submitted
    loaded = load_agent(Path("models/mine/agent.pt"), device="cpu")
    original = load_agent(checkpoint, device="cpu")
    observations = np.random.default_rng(1).normal(size=(3, 18)).astype(np.float32)
    np.testing.assert_array_equal(loaded.agent.act_prior(observations), original.agent.act_prior(observations))
    assert loaded.step == 70
    before = Path("models/mine/agent.pt").read_bytes()
    assert main(["export", str(checkpoint), "models/mine"]) == 2
    assert "there already" in capsys.readouterr().err
    assert Path("models/mine/agent.pt").read_bytes() == before
    assert main(["export", str(checkpoint), "models/mine", "--force"]) == 0
    assert main(["eval", "models/mine", "--episodes", "2", "--opponent", "weak", "models/mine"]) == 0


def test_games_in_a_window(checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["play", str(checkpoint), "--games", "2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(":")[0] for line in lines] == ["game 1 against strong", "game 2 against strong"]
    assert "20 steps" in lines[0]
    assert main(["play", str(checkpoint), "--games", "1", "--policy", "--human"]) == 0
    shown = capsys.readouterr()
    assert "arrow keys move" in shown.err
    assert shown.out.startswith("game 1 against you: 20 steps")


def test_what_can_not_be_played(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["play", str(checkpoint), "--human", "--opponent", "weak"]) == 2
    assert "two opponents" in capsys.readouterr().err
    assert main(["play", str(checkpoint), "--opponent", "weka"]) == 2
    assert "weak" in capsys.readouterr().err
    assert main(["play", "models/none"]) == 2
    for name in ("SDL_VIDEODRIVER", "DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    assert main(["play", str(checkpoint)]) == 3
    assert "there is no display" in capsys.readouterr().err


@pytest.fixture
def exported(checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    """`models/hockey`, as `export` leaves it."""
    assert main(["export", str(checkpoint), "models/hockey"]) == 0
    capsys.readouterr()
    return Path("models/hockey")


ALLOWED = "allowed: a job id, a checkpoint (*.pt) or a folder with one"


@pytest.mark.parametrize(
    ("target", "told"),
    [
        ("models/hocky", "models/hocky: no such file or folder; did you mean models/hockey?"),
        ("modles/hockey", "modles/hockey: no such file or folder; did you mean models/hockey?"),
        ("hocky", "'hocky' is neither a job id nor a file or folder; did you mean models/hockey?"),
        ("modls", "'modls' is neither a job id nor a file or folder; did you mean models/hockey?"),
        ("models/hockey/agnt.pt", "models/hockey/agnt.pt: no such checkpoint; did you mean models/hockey/agent.pt?"),
        ("models", "models: this folder holds no agent itself; did you mean models/hockey?"),
        ("experiments", f"experiments: this folder holds no agent; {ALLOWED}"),
        ("some/where", f"some/where: no such file or folder; {ALLOWED}"),
        ("jobs/1971498/", "jobs/1971498: this is the folder of a job; give its id: 1971498"),
        ("xyz", "'xyz' is no job id: an id looks like 1971498, "),
        ("xyz", "nor is there a file or folder of this name"),
        ("1971499", "no job 1971499 in "),
    ],
)
def test_where_no_agent_is(exported: Path, capsys: pytest.CaptureFixture[str], target: str, told: str) -> None:
    Path("jobs/1971498").mkdir(parents=True)
    Path("jobs/1971498/job.json").write_text("{}")
    for words in (["eval", target], ["play", target], ["export", target, "elsewhere"]):
        assert main(words) == 2
        assert told in capsys.readouterr().err
    assert not Path("elsewhere").exists()
    assert main(["eval", "models/hockey", "--opponent", target]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: --opponent {target}")
    assert told in error or "is not known: write one of" in error  # a word may also be a bot


def test_a_path_is_looked_for_from_everywhere_in_the_project(
    exported: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir("experiments")
    assert main(["export", "models/hocky", "elsewhere"]) == 2
    assert "did you mean models/hockey?" in capsys.readouterr().err
    assert main(["export", "models/hockey", "elsewhere"]) == 0


def test_a_mistyped_path_in_a_spec(exported: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["submit", "models/hockey/spec.yaml", "--cluster", "local", "env.opponent=models/hocky"]
    assert main(words) == 2
    told = "env.opponent: 'models/hocky' is no agent: models/hocky: no such file or folder; did you mean models/hockey?"
    assert told in capsys.readouterr().err


def test_a_spec_beside_its_trained_agent(exported: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spec = str(exported / "spec.yaml")
    assert main(["eval", spec, "--episodes", "2", "--policy", "--json"]) == 0
    output = capsys.readouterr()
    hint = f"hint: this is the untrained agent of {spec}; the trained one beside it: tdmpc-lab eval {exported}\n"
    assert hint in output.err
    assert json.loads(output.out)["agent"] == f"the agent of {spec} before any training"
    assert main(["play", spec, "--games", "1", "--policy"]) == 0
    assert f"the trained one beside it: tdmpc-lab play {exported}\n" in capsys.readouterr().err
    assert main(["export", spec, "elsewhere"]) == 2
    assert f"{spec}: this is a spec, no agent; did you mean {exported}/agent.pt?" in capsys.readouterr().err
    (exported / "agent.pt").unlink()
    assert main(["eval", spec, "--episodes", "2", "--policy"]) == 0
    assert "hint" not in capsys.readouterr().err
    assert main(["export", spec, "elsewhere"]) == 2
    assert f"{spec}: this is a spec, no agent; {ALLOWED}" in capsys.readouterr().err


BOTS = "weak, strong, random, none"
OTHERS = "a job id or the path of a checkpoint or of a folder with one"


@pytest.mark.parametrize(
    ("command", "name", "told"),
    [
        ("play", "nobody", f"--opponent nobody is not known: write one of {BOTS}, human, {OTHERS}"),
        ("eval", "nobody", f"--opponent nobody is not known: write one of {BOTS}, {OTHERS}"),
        ("eval", "human", f"write one of {BOTS}, {OTHERS}; a user plays with: tdmpc-lab play … --human"),
        ("play", "hunan", "--opponent hunan is not known: did you mean 'human'?"),
        ("play", "weak:plan", "--opponent weak:plan is not known: did you mean 'weak'?"),
        ("play", "self", "--opponent self: an agent's past copies play in its training only; name the job or the"),
        ("eval", "self:plan", "--opponent self:plan: an agent's past copies play in its training only"),
        ("play", "1971498", "--opponent 1971498: no job 1971498"),
        ("eval", "no.pt", "--opponent no.pt: no.pt: no such checkpoint"),
        ("eval", "other.pt", "--opponent 'other.pt' plays another game"),
        ("play", "other.pt", "--opponent 'other.pt' plays another game"),
        ("play", "torn.pt", "--opponent 'torn.pt': torn.pt: can't be read as a checkpoint"),
    ],
)
def test_an_opponent_is_told_of_as_it_was_given(
    checkpoint: Path, capsys: pytest.CaptureFixture[str], command: str, name: str, told: str
) -> None:
    spec = load_resolved_text(SPEC, "spec")
    other = Agent(3, 1, episode_length=20, agent=spec.agent, planner=spec.planner, seed=3, device="cpu")
    save_copy(Path("other.pt"), other, header(SPEC, 3, 1, 20), 70)
    Path("torn.pt").write_text("torn")
    assert main([command, str(checkpoint), "--opponent", name]) == 2
    output = capsys.readouterr()
    assert told in output.err
    assert "env.opponent" not in output.err and "{weak" not in output.err
    assert output.out == ""


def test_an_agent_and_a_person_are_opponents(checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    call = ["play", str(checkpoint), "--games", "1", "--policy", "--opponent"]
    assert main([*call, f"{checkpoint.name}:policy"]) == 0
    assert main([*call, "human"]) == 0
    assert capsys.readouterr().out.splitlines()[1].startswith("game 1 against you: ")


def test_the_bots_are_those_of_the_game() -> None:
    assert SCRIPTED == OPPONENT_NAMES


def test_the_keys_are_those_of_the_original(monkeypatch: pytest.MonkeyPatch) -> None:
    """Player two's numbered actions of the two-player game, key by key."""
    import pygame

    game = HockeyEnv()
    numbered = {
        pygame.K_LEFT: 2,
        pygame.K_UP: 3,
        pygame.K_RIGHT: 1,
        pygame.K_DOWN: 4,
        pygame.K_w: 5,
        pygame.K_s: 6,
        pygame.K_SPACE: 7,
    }
    for key, number in numbered.items():
        pressed = SimpleNamespace(get_pressed=lambda key=key: {k: k == key for k in numbered})
        monkeypatch.setattr(pygame, "key", pressed)
        expected = game.discrete_to_continous_action(number)
        assert KeyboardPlayer().act(np.zeros(18)).tolist() == expected
