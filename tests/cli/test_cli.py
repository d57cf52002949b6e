"""The command line without starting jobs: help, wrong input, and what must not be written."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from tdmpc_lab.cli.main import build_parser, main, parse

QUICK = Path(__file__).parents[2] / "experiments" / "quickstart.yaml"
REFERENCE = Path(__file__).parents[2] / "experiments" / "reference.yaml"


@pytest.fixture
def root(project: Path) -> Path:
    (project / "experiments" / "quick.yaml").write_text(QUICK.read_text())
    (project / "experiments" / "reference.yaml").write_text(REFERENCE.read_text())
    return project


def nothing_written(root: Path) -> bool:
    return sorted(p.name for p in root.iterdir()) == ["experiments"]


def test_commands_and_options_are_what_scripts_rely_on():
    actions = build_parser()._subparsers._group_actions[0].choices
    options = {name: sorted(o for a in p._actions for o in a.option_strings) for name, p in actions.items()}
    sizes = ["--action-dim", "--help", "--json", "--obs-dim", "-h"]
    launching = [
        "--cluster",
        "--help",
        "--json",
        "--max-local",
        "--no-lint",
        "--skip-preflight",
        "--wait",
        "--yes",
        "-h",
    ]
    assert options == {
        "init": ["--group", "--help", "--json", "--shared", "-h"],
        "submit": sorted(
            [
                *launching,
                "--after",
                "--again",
                "--array-limit",
                "--dry-run",
                "--no-snapshot",
                "--profile",
                "--skip-existing",
            ]
        ),
        "resume": sorted([*launching, "--steps", "--no-snapshot", "--dry-run"]),
        "rerun": sorted([*launching, "--dry-run"]),
        "eval": sorted(
            ["--device", "--episodes", "--help", "--json", "--opponent", "--policy", "--seed", "--video", "-h"]
        ),
        "play": sorted(["--device", "--games", "--help", "--human", "--opponent", "--policy", "--seed", "-h"]),
        "export": ["--force", "--help", "--training", "-h"],
        "rewards": sorted(["--at", "--episodes", "--help", "--json", "--out", "--phase", "--player", "-h"]),
        "cancel": ["--experiment", "--help", "--json", "--save", "--yes", "-h"],
        "wait": ["--help", "--json", "-h"],
        "show": ["--help", "--json", "-h"],
        "compare": [
            *(
                "--alone",
                "--by",
                "--csv",
                "--help",
                "--html",
                "--json",
                "--lower",
                "--md",
                "--metric",
                "--over",
                "--plot",
            ),
            *("--reference", "--threshold", "--until", "-h"),
        ],
        "gc": ["--help", "--json", "--keep", "--older-than", "--remove", "--yes", "-h"],
        "sync": ["--help", "--json", "-h"],
        "status": [
            *("--all", "--cluster", "--experiment", "--foreign", "--help", "--json", "--md", "--mine", "--no-foreign"),
            *("--partition", "--since", "--state", "--watch", "-h"),
        ],
        "logs": ["--err", "--follow", "--help", "--lines", "-f", "-h", "-n"],
        "note": ["--edit", "--help", "--json", "-h"],
        "notes": [
            *("--all", "--experiment", "--help", "--html", "--json", "--move", "--rollup", "--since", "--state"),
            *("--text", "--unjudged", "--until", "--verdict", "-h"),
        ],
        "verdict": ["--cause", "--help", "--json", "-h"],
        "ui": ["--help", "--port", "--print", "-h"],
        "describe": sizes,
        "check": sorted([*sizes, "--cluster", "--profile"]),
        "doctor": ["--help", "--json", "-h"],
        "bench": sorted([*sizes, "--repeats", "--no-reference"]),
        "schema": ["--help", "-h"],
    }


def test_help_is_quick():
    """In processor time, and the least of five runs, so that a busy machine does not decide; the limit is 0.4 s."""
    times = []
    for _ in range(5):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run([sys.executable, "-m", "tdmpc_lab", "--help"], capture_output=True, check=True, text=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        times.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert "submit" in done.stdout
    assert min(times) < 0.4, times


@pytest.mark.parametrize("words", [["status", "--json"], ["submit", "experiments/quick.yaml", "agent.horzon=3"]])
def test_quick_commands_load_nothing_heavy(root, words):
    code = (
        "import sys; from tdmpc_lab.cli.main import main; main(sys.argv[1:]); "
        "print([m for m in ('torch', 'mlflow', 'pandas', 'submitit') if m in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code, *words], cwd=root, capture_output=True, text=True, check=True)
    assert done.stderr.splitlines()[-1] == "[]"


def test_overrides_may_stand_after_options():
    assert parse(["submit", "a.yaml", "--wait", "train.seed=2"]).words == ["a.yaml", "train.seed=2"]
    with pytest.raises(SystemExit) as stop:
        parse(["submit", "a.yaml", "--wiat"])
    assert stop.value.code == 2


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["agent.horzon=3"], ["agent.horzon", "did you mean", "horizon"]),
        (["agent.horizon=0"], ["agent.horizon", "0", "≥ 1"]),
        (["train.steps=abc"], ["train.steps", "abc", "whole number"]),
        (["planner.elites=200"], ["planner.elites", "200", "planner.samples"]),
        (["train.device=gpu"], ["train.device", "cuda"]),
        (["env.id=Pendulum-v9"], ["Pendulum"]),
        (["env.id=CartPole-v1"], ["CartPole-v1", "Discrete", "Box"]),
        (["compare_to=nothing_like_it"], ["compare_to", "nothing_like_it"]),
        (["agent.horizon=0", "train.lr=1", "slurm.time=90"], ["agent.horizon", "train.lr", "slurm.time"]),
    ],
)
def test_wrong_specs_exit_with_2_and_write_nothing(root, capsys, words, said):
    assert main(["submit", "experiments/quick.yaml", "--cluster", "local", *words]) == 2
    output = capsys.readouterr()
    assert output.out == ""
    for piece in said:
        assert piece in output.err
    assert nothing_written(root)


def test_problems_of_all_specs_come_at_once(root, capsys):
    (root / "experiments" / "a.yaml").write_text("env: {id: Pendulum-v1}\nagent: {horizon: -1}\n")
    (root / "experiments" / "b.yaml").write_text("env: {id: Pendulum-v1}\ntrain: {seed: x}\ntrain: {}\n")
    assert main(["submit", "experiments/a.yaml", "experiments/b.yaml", "experiments/none.yaml"]) == 2
    err = capsys.readouterr().err
    assert "a.yaml:2" in err
    assert "b.yaml:3" in err
    assert "none.yaml" in err
    assert nothing_written(root)


def test_works_from_a_folder_below_the_root(root, capsys, monkeypatch):
    below = root / "experiments" / "deeper"
    below.mkdir()
    monkeypatch.chdir(below)
    assert main(["submit", "experiments/quick.yaml", "--cluster", "local", "--dry-run", "train.seed=4"]) == 0
    out = capsys.readouterr().out
    assert "would run on local; nothing was written" in out
    assert "seed: 4" in out
    assert nothing_written(root)


def test_outside_of_a_project(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["status"]) == 2
    assert "no project at or above" in capsys.readouterr().err


def test_status_without_jobs_and_unknown_ids(root, capsys):
    assert main(["status"]) == 0
    assert "no jobs yet" in capsys.readouterr().out
    assert main(["status", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == []
    for words in (["note", "last"], ["note", "123"], ["wait", "../../x"], ["cancel", "local-2020"], ["resume", "1_2"]):
        assert main(words) == 2, words


def test_describe(root, capsys):
    assert main(["describe", "experiments/reference.yaml", "--obs-dim", "18", "--action-dim", "4"]) == 0
    assert "TOTAL TRAINABLE PARAMETERS: 10,674,023" in capsys.readouterr().out
    assert main(["describe", "experiments/reference.yaml", "--obs-dim", "18", "--action-dim", "4", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["parameters"]["total"] == 10_674_023
    assert main(["describe", "experiments/quick.yaml"]) == 0  # sizes from the environment
    assert "in_features=3," in capsys.readouterr().out
    assert main(["describe", "experiments/quick.yaml", "--obs-dim", "18"]) == 2
    assert "both --obs-dim and --action-dim" in capsys.readouterr().err


def test_check_and_bench(root, capsys):
    assert main(["check", "experiments/quick.yaml"]) == 0
    assert "one plan and one update ran on cpu" in capsys.readouterr().out
    assert main(["check", "experiments/quick.yaml", "--obs-dim", "18", "--action-dim", "4", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["observation_dim"] == 18
    assert main(["bench", "experiments/quick.yaml", "--repeats", "2", "--no-reference", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert 0 < result["plan_ms_min"] <= result["plan_ms"] <= result["plan_ms_max"]
    assert result["update_ms"] > 0
    assert result["plan_gflops"] == pytest.approx(result["plan_flops"] / result["plan_ms"] / 1e6)
    assert 0 < result["plan_share_of_ceiling"] <= 1
    assert result["env_steps_per_s"] > 0
    assert result["predicted_s"] > 0
    assert result["reference"] == {}


def test_bench_without_a_spec_times_the_reference_agent(monkeypatch, capsys):
    """Anywhere, without a project. The agent is made small here; its sizes stand in the test of `flops`."""
    from tdmpc_lab.app.agents import bench
    from tdmpc_lab.config.schema import AgentConfig, PlannerConfig

    def small(**fields):
        return AgentConfig(latent_dim=16, hidden_dim=16, termination_dim=8, **fields)

    monkeypatch.setattr(bench, "AgentConfig", small)
    monkeypatch.setattr(bench, "PlannerConfig", lambda: PlannerConfig(samples=32, iterations=1, elites=8))
    monkeypatch.setattr(bench, "REFERENCE_BATCH", 16)
    monkeypatch.setattr("tdmpc_lab.training.build.available_cpus", lambda: 1)
    assert main(["bench", "--repeats", "1", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert {f"horizon_{h}" for h in (9, 3)} == set(result["reference"])
    assert all(r["plan_ms"] > 0 and r["update_ms"] > 0 for r in result["reference"].values())
    assert result["plan_ms"] == result["reference"]["horizon_9"]["plan_ms"]
    assert result["env_steps_per_s"] is None
    assert main(["bench", "--repeats", "1"]) == 0
    text = capsys.readouterr().out
    assert "reference agent, horizon 3; torch's products in float32" in text
    assert "% of the ceiling" in text
    assert main(["bench", "--no-reference"]) == 2
    assert "a spec is needed" in capsys.readouterr().err


def test_a_device_that_is_not_there_exits_with_3(root, capsys):
    torch = pytest.importorskip("torch")
    name = f"cuda:{torch.cuda.device_count() + 7}"
    assert main(["check", "experiments/quick.yaml", "--cluster", "local", f"train.device={name}"]) == 3
    assert name in capsys.readouterr().err


def test_schema_is_json(capsys):
    assert main(["schema"]) == 0
    schema = json.loads(capsys.readouterr().out)
    assert "horizon" in json.dumps(schema)


def test_ui_prints_its_command(root, capsys):
    assert main(["ui", "--print", "--port", "5091"]) == 0
    line = capsys.readouterr().out
    assert "mlflow ui" in line
    assert f"sqlite:///{root}/mlruns/mlflow.db" in line
    assert "--host 127.0.0.1 --port 5091" in line


def test_dry_run_for_slurm_shows_the_script(root, capsys):
    words = ["submit", "experiments/reference.yaml", "--cluster", "slurm", "--dry-run", "--skip-preflight", "--json"]
    assert main(words) == 0
    report = json.loads(capsys.readouterr().out)["jobs"][0]
    assert "#SBATCH --partition=day" in report["sbatch"]
    assert "#SBATCH --time=1440" in report["sbatch"]
    assert "2080ti:1" in report["sbatch"]
    assert report["name"] == "reference"
    assert nothing_written(root)


SWEEP = "sweep: {agent.horizon: [3, 4], train.seed: [0, 1]}\n"


def test_dry_run_of_a_sweep_shows_every_point(root, capsys):
    spec = root / "experiments" / "quick.yaml"
    spec.write_text(spec.read_text() + SWEEP)
    words = ["submit", "experiments/quick.yaml", "--cluster", "local", "--dry-run"]
    assert main([*words, "--json"]) == 0
    jobs = json.loads(capsys.readouterr().out)["jobs"]
    assert [job["sweep"] for job in jobs] == [
        {"index": i, "count": 4, "point": {"agent.horizon": h, "train.seed": s}}
        for i, (h, s) in enumerate([(3, 0), (3, 1), (4, 0), (4, 1)])
    ]
    assert "horizon: 4\n" in jobs[3]["resolved"]
    assert "sweep" not in jobs[3]["resolved"]
    assert main(words) == 0
    out = capsys.readouterr().out
    assert "quick: 4 jobs would run on local; nothing was written\n" in out
    assert "  agent.horizon=4, train.seed=0 (job 3 of 4)\n" in out
    assert out.count("env:") == 1
    slurm = ["submit", "experiments/quick.yaml", "--cluster", "slurm", "--dry-run", "--skip-preflight"]
    assert main(slurm) == 0
    out = capsys.readouterr().out
    assert out.index("#SBATCH --begin") < out.index("env:")  # the script does not stand behind all settings
    assert "(--begin=now+52weeks is lifted as soon as the job's folder is complete" in out
    assert "  batch_size: 128\n" in out and "updates_per_step" not in out  # what the spec sets, not the defaults
    assert main([*words, "agent.horizon=5"]) == 0
    assert "quick: 2 jobs would run" in capsys.readouterr().out
    assert nothing_written(root)


def test_a_wrong_point_exits_with_2(root, capsys):
    spec = root / "experiments" / "quick.yaml"
    spec.write_text(spec.read_text() + "sweep: {env.id: [Pendulum-v1, Pendulum-v9], agent.horizn: [3]}\n")
    assert main(["submit", "experiments/quick.yaml", "--cluster", "local"]) == 2
    assert "sweep.agent.horizn: unknown key (did you mean 'horizon'?)" in capsys.readouterr().err
    spec.write_text(spec.read_text().replace(", agent.horizn: [3]", ""))
    for command in ("submit", "check"):
        assert main([command, "experiments/quick.yaml"]) == 2
        assert "Pendulum-v9" in capsys.readouterr().err
    assert nothing_written(root)


def test_looking_at_a_sweep_takes_its_first_point_and_says_so(root, capsys):
    spec = root / "experiments" / "quick.yaml"
    spec.write_text(spec.read_text() + SWEEP)
    assert main(["describe", "experiments/quick.yaml"]) == 0
    assert "has a sweep; this is agent.horizon=3, train.seed=0 (job 1 of 4)" in capsys.readouterr().err
    assert main(["describe", "experiments/quick.yaml", "agent.horizon=4", "train.seed=0"]) == 0
    assert capsys.readouterr().err == ""
    assert main(["check", "experiments/quick.yaml"]) == 0
    assert "the spec is valid; 4 points, described is the first" in capsys.readouterr().out


def test_a_folder_that_can_t_be_written_is_one_line_and_exit_3(root, capsys):
    (root / "jobs").write_text("not a folder")
    assert main(["submit", "experiments/quick.yaml", "--cluster", "local"]) == 3
    err = capsys.readouterr().err
    assert err.splitlines()[-1].startswith("error: ")
    assert "jobs" in err
    assert "Traceback" not in err


def test_a_damaged_job_is_shown_and_keeps_all_keys(root, capsys):
    folder = root / "jobs" / "123"
    folder.mkdir(parents=True)
    (folder / "job.json").write_text("{torn")
    (root / "jobs" / "my notes").mkdir()
    assert main(["status", "--json"]) == 0
    jobs = json.loads(capsys.readouterr().out)
    assert [j["id"] for j in jobs] == ["123"]
    assert jobs[0]["state"] == "UNKNOWN"
    assert "job.json" in jobs[0]["cause"]
    assert {"experiment", "step", "steps", "eta_s"} <= jobs[0].keys()
    assert main(["status"]) == 0
    assert "UNKNOWN" in capsys.readouterr().out


@pytest.mark.parametrize("words", [["submit", "--cluster", "local", "--dry-run"], ["check"], ["describe"]])
def test_what_an_environment_prints_stays_out_of_the_document(root, capsys, monkeypatch, words):
    (root / "talkative.py").write_text("print('hello')\nimport gymnasium\n")
    monkeypatch.syspath_prepend(root)
    monkeypatch.delitem(sys.modules, "talkative", raising=False)
    assert main([words[0], "experiments/quick.yaml", "env.id=talkative:Pendulum-v1", *words[1:], "--json"]) == 0
    output = capsys.readouterr()
    json.loads(output.out)
    assert "hello" in output.err
