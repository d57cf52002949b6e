"""Every wrong value is told at its own key, with file, line, what is allowed and a remedy."""

from __future__ import annotations

from pathlib import Path

import pytest
from spec_fixtures import (
    DURATION,
    ENV,
    EVAL,
    NAME,
    ONE_LINE,
    POSITIVE,
    REWARD,
    SECTION,
    TEXT_LINE,
    problems,
)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        # numbers
        ("agent: {horizon: -1}", f"agent.horizon: found -1; allowed: {POSITIVE}"),
        ('agent: {horizon: "5"}', f'agent.horizon: found "5"; allowed: {POSITIVE} (drop the quotes: 5)'),
        ("agent: {horizon: true}", f"agent.horizon: found true; allowed: {POSITIVE}"),
        ("agent: {horizon: 5.0}", f"agent.horizon: found 5.0; allowed: {POSITIVE} (write 5)"),
        ("agent: {horizon: 5.5}", f"agent.horizon: found 5.5; allowed: {POSITIVE}"),
        ("agent: {horizon: 5e-1}", f"agent.horizon: found 5e-1; allowed: {POSITIVE}"),
        ("agent: {horizon: [4, 6]}", f"agent.horizon: found a list; allowed: {POSITIVE}"),
        ("agent: {horizon: {a: 1}}", f"agent.horizon: found keys with values; allowed: {POSITIVE}"),
        (
            "agent: {horizon: }",
            f"agent.horizon: found nothing; allowed: {POSITIVE} (leave the key out for its default)",
        ),
        (
            "agent: {horizon: null}",
            f"agent.horizon: found null; allowed: {POSITIVE} (leave the key out for its default)",
        ),
        ("agent: {horizon: 010}", f"agent.horizon: found 010; allowed: {POSITIVE}"),
        ("agent: {lr: 0}", "agent.lr: found 0; allowed: a number > 0"),
        ("agent: {lr: fast}", "agent.lr: found fast; allowed: a number > 0"),
        ("agent: {lr: '3e-4'}", "agent.lr: found '3e-4'; allowed: a number > 0 (drop the quotes: 3e-4)"),
        ("agent: {lr: .nan}", "agent.lr: found .nan; allowed: a number > 0"),
        ("agent: {bin_low: -.inf}", "agent.bin_low: found -.inf; allowed: a number"),
        ("agent: {lr: yes}", "agent.lr: found yes; allowed: a number > 0"),
        ("agent: {rho: 1.5}", "agent.rho: found 1.5; allowed: a number > 0 and ≤ 1"),
        ("agent: {discount: 1}", "agent.discount: found 1; allowed: a number ≥ 0 and < 1, or null"),
        (
            "train: {seed: 2147483648}",
            "train.seed: found 2147483648; allowed: a whole number ≥ 0 and < 2147483648",
        ),
        ("train: {threads: off}", f"train.threads: found off; allowed: {POSITIVE}, or null"),
        # texts
        ("name: 123", f'name: found 123; allowed: {NAME} (quote it: "123")'),
        ("name: 1_2", f'name: found 1_2; allowed: {NAME} (quote it: "1_2")'),
        ("name: a b", f"name: found a b; allowed: {NAME}"),
        ("name: ../x", f"name: found ../x; allowed: {NAME}"),
        ("name: .x", f"name: found .x; allowed: {NAME}"),
        ("name: -x", f"name: found -x; allowed: {NAME}"),
        ("name: ü", f"name: found ü; allowed: {NAME}"),
        ('name: ""', f'name: found ""; allowed: {NAME}'),
        (f"name: {'x' * 81}", f"name: found {'x' * 59}…; allowed: {NAME}"),
        ('name: "x\\n"', f'name: found "x\\n"; allowed: {NAME}'),
        ("about: no", f'about: found no; allowed: {ONE_LINE} (quote it: "no")'),
        ("about: 1.50", f'about: found 1.50; allowed: {ONE_LINE} (quote it: "1.50")'),
        ("about:", f'about: found nothing; allowed: {ONE_LINE} (write "" for no text)'),
        ('about: "a\\nb"', f'about: found "a\\nb"; allowed: {ONE_LINE}'),
        ('about: "a\\x1b[31m"', f'about: found "a\\x1b[31m"; allowed: {ONE_LINE}'),
        ("about: |\n  a\n  b", f"about: found | a b; allowed: {ONE_LINE}"),
        (f"why: {'y' * 501}", f"why: found {'y' * 59}…; allowed: {ONE_LINE}"),
        ("why: [a]", f"why: found a list; allowed: {ONE_LINE}"),
        ("compare_to: 1971498", f'compare_to: found 1971498; allowed: {NAME}, or null (quote it: "1971498")'),
        ("train: {device: gpu}", "train.device: found gpu; allowed: auto, cpu, cuda or cuda:N"),
        ('train: {device: "cuda:x"}', 'train.device: found "cuda:x"; allowed: auto, cpu, cuda or cuda:N'),
        (
            "agent: {policy: squashed_gausian}",
            "agent.policy: found squashed_gausian; allowed: one of: squashed_gaussian, clipped_gaussian "
            "(did you mean 'squashed_gaussian'?)",
        ),
        ("train: {replay_device: cuda}", "train.replay_device: found cuda; allowed: one of: auto, host"),
        ("train: {replay_device: 3}", "train.replay_device: found 3; allowed: one of: auto, host"),
        # SLURM
        (
            "slurm: {time: 90}",
            f"slurm.time: found 90; allowed: {DURATION} "
            "(minutes or hours? write 1:30:00 for minutes, 90:00:00 for hours)",
        ),
        (
            "slurm: {time: 1:30}",
            f"slurm.time: found 1:30; allowed: {DURATION} "
            "(minutes or hours? write 1:30:00 for hours, 0:01:30 for minutes)",
        ),
        ("slurm: {time: 00:00:00}", f"slurm.time: found 00:00:00; allowed: {DURATION}"),
        ("slurm: {time: 1:60:00}", f"slurm.time: found 1:60:00; allowed: {DURATION}"),
        ("slurm: {time: 1-24:00:00}", f"slurm.time: found 1-24:00:00; allowed: {DURATION}"),
        ("slurm: {time: 1.5}", f"slurm.time: found 1.5; allowed: {DURATION}"),
        ("slurm: {time: null}", f"slurm.time: found null; allowed: {DURATION}"),
        ("slurm: {time: off}", f"slurm.time: found off; allowed: {DURATION}"),
        ("slurm: {memory: 16}", "slurm.memory: found 16; allowed: a size such as 16G, 800M or 1T"),
        ("slurm: {memory: lots}", "slurm.memory: found lots; allowed: a size such as 16G, 800M or 1T"),
        (
            "slurm: {gpus: 0}",
            f"slurm.gpus: found 0; allowed: {POSITIVE}, or a type and a number such as 2080ti:1, or null",
        ),
        (
            "slurm: {gpus: 2080ti}",
            f"slurm.gpus: found 2080ti; allowed: {POSITIVE}, or a type and a number such as 2080ti:1, or null",
        ),
        (
            'slurm: {partition: "day\\n#SBATCH --x"}',
            'slurm.partition: found "day\\n#SBATCH --x"; '
            "allowed: the name of a partition, or several with commas, or null",
        ),
        (
            "slurm: {setup: module load x}",
            f"slurm.setup: found module load x; allowed: a list, each item {TEXT_LINE} (write a list: [module load x])",
        ),
        ('slurm: {setup: [a, "b\\nc"]}', f'slurm.setup.1: found "b\\nc"; allowed: {TEXT_LINE}'),
        ("slurm: {setup: [5]}", f'slurm.setup.0: found 5; allowed: {TEXT_LINE} (quote it: "5")'),
        (
            "slurm: {extra: {--qos: x}}",
            "slurm.extra.--qos: found the key '--qos'; "
            "allowed: a long option of sbatch without its dashes, such as qos",
        ),
        (
            'slurm: {extra: {qos: "a\\nb"}}',
            f'slurm.extra.qos: found "a\\nb"; allowed: {TEXT_LINE}, or a whole number, or true or false',
        ),
        (
            "slurm: {extra: {qos: 1.5}}",
            f'slurm.extra.qos: found 1.5; allowed: {TEXT_LINE}, or a whole number, or true or false (quote it: "1.5")',
        ),
        ("slurm: {extra: qos}", "slurm.extra: found qos; allowed: keys with values, as in {a: 1}"),
        ("slurm: {extra: [qos]}", "slurm.extra: found a list; allowed: keys with values, as in {a: 1}"),
        # sections
        (
            "reward: off",
            f"reward: found off; allowed: {REWARD} (this section can't be off; leave it out for its defaults)",
        ),
        (
            "reward:",
            f"reward: found nothing; allowed: {REWARD} (leave the section out for its defaults)",
        ),
        (
            "reward: on",
            f"reward: found on; allowed: {REWARD} (write `reward: {{}}` for the defaults)",
        ),
        ("reward: 5", f"reward: found 5; allowed: {REWARD}"),
        ("reward: [a]", f"reward: found a list; allowed: {REWARD}"),
        (
            "eval:",
            f"eval: found nothing; allowed: {EVAL} (write `eval: off`)",
        ),
        ("eval: 3", f"eval: found 3; allowed: {EVAL} (write `eval: {{}}` for the defaults)"),
        ("eval: {every: 0}", f"eval.every: found 0; allowed: {POSITIVE}"),
        # sections that take a bare number
        (
            "reward: {shaping: {touch: x}}",
            f"reward.shaping.touch: found x; allowed: a number, or {SECTION} start, final "
            "(write `reward.shaping.touch: {start: …}`)",
        ),
        (
            "reward: {shaping: {touch: {final: 2}}}",
            "reward.shaping.touch.start: missing; allowed: a number (write touch: {start: …})",
        ),
        (
            "reward: {backprop: {discount: 1.5}}",
            "reward.backprop.discount: found 1.5; allowed: a number ≥ 0 and ≤ 1",
        ),
        (
            "reward: {backprop: {bonus: {start: 10, final: 0}}}",
            "reward.backprop.bonus: goes from 10.0 to 0.0 at once, for hold and ramp are both 0: 10.0 never counts "
            "(write ramp: N, in training episodes)",
        ),
        # unknown keys
        ("agent: {horizn: 3}", "agent.horizn: unknown key (did you mean 'horizon'?)"),
        ("agent: {Latent-Dim: 8}", "agent.Latent-Dim: unknown key (did you mean 'latent_dim'?)"),
        ("train: {horizon: 3}", "train.horizon: unknown key (did you mean agent.horizon?)"),
        ("horizon: 3", "horizon: unknown key (did you mean agent.horizon?)"),
        ("agent: {batchsize: 3}", "agent.batchsize: unknown key (did you mean train.batch_size?)"),
        ("trian: {steps: -1}", "trian: unknown key (did you mean 'train'?)"),
        ("eval: {xyz: 3}", "eval.xyz: unknown key (known here: every, episodes, opponents, video_every)"),
        ("agent: {1: 2}", "agent.1: unknown key (known here: "),
        # YAML
        ("agent: {horizon: 3, horizon: 4}", "agent.horizon: given twice, first in line 2 (keep one of them)"),
        ("agent: {horizon: !x 3}", "agent.horizon: a tag (`!…`) is not allowed"),
        ("agent: !x {horizon: 3}", "agent: a tag (`!…`) is not allowed"),
        ("slurm: {setup: [a, !x b]}", "slurm.setup.1: a tag (`!…`) is not allowed"),
    ],
)
def test_one_wrong_value(tmp_path: Path, line: str, expected: str) -> None:
    (problem,) = problems(tmp_path, ENV + line)
    expected = f"demo.yaml:2: {expected}"
    assert problem == expected if expected.endswith((")", "null")) else problem.startswith(expected)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "about: x",
            "demo.yaml: env.id: missing; allowed: an environment id such as Pendulum-v1 or module:Name-v0 "
            "(write env: {id: …})",
        ),
        (
            "about: x\nenv: {options: {a: 1}}",
            "demo.yaml:2: env.id: missing; allowed: an environment id such as Pendulum-v1 or module:Name-v0 "
            "(write env: {id: …})",
        ),
        (
            "about: x\nenv:",
            f"demo.yaml:2: env: found nothing; allowed: {SECTION} id, options, max_episode_steps, opponent, "
            "time_limit, self_play "
            "(write `env: {id: …}`)",
        ),
        (
            "env: {id: a b}",
            "demo.yaml:1: env.id: found a b; allowed: an environment id such as Pendulum-v1 or module:Name-v0",
        ),
        (
            "env: {id: 5}",
            "demo.yaml:1: env.id: found 5; allowed: an environment id such as Pendulum-v1 or module:Name-v0 "
            '(quote it: "5")',
        ),
        (
            "env: {id: x, options: [a]}",
            "demo.yaml:1: env.options: found a list; allowed: keys with values, as in {a: 1}",
        ),
        (
            "env: {id: x, options: }",
            "demo.yaml:1: env.options: found nothing; allowed: keys with values, as in {a: 1} "
            "(leave the key out for its default)",
        ),
    ],
)
def test_the_environment(tmp_path: Path, text: str, expected: str) -> None:
    assert problems(tmp_path, text) == [expected]


def test_all_errors_at_once_in_the_order_of_the_file(tmp_path: Path) -> None:
    text = """\
train: {steps: 0, seed: x}
about: 5
about: 6
agent:
  horizn: 3
  latent_dim: 100   # no multiple of 8: a rule, told beside the wrong keys
  lr: fast
planner: {elites: 64, samples: ten}   # a rule with a wrong key says nothing
env: {id: [x]}
sluurm: {}
slurm: !x {}
"""
    found = [line.split(":")[1] + line.split(":")[2] for line in problems(tmp_path, text, "seed=3", "nonsense")]
    assert found == [
        "1 train.steps",
        "1 train.seed",
        "2 about",
        "3 about",
        "5 agent.horizn",
        "6 agent.latent_dim",
        "7 agent.lr",
        "8 planner.samples",
        "9 env.id",
        "10 sluurm",
        "11 slurm",
        " found 'nonsense'; allowed key=value, such as agent.horizon=5",
        " seed unknown key (did you mean train.seed?)",
    ]
