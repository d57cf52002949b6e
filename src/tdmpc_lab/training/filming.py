"""Whether an environment can be filmed, tried in a process of its own: `python -m tdmpc_lab.training.filming SPEC`.

Pictures are drawn by libraries that end the process where there is no display, or hang, and at times only when they
draw for a second time. What ends that process ends no training.
"""

from __future__ import annotations

import os
import sys

from tdmpc_lab.agent.child import ask
from tdmpc_lab.config.loader import load_resolved_text
from tdmpc_lab.config.schema import Spec
from tdmpc_lab.config.serialize import dump_yaml
from tdmpc_lab.envs import has_opponents, make_env
from tdmpc_lab.errors import LabError, SpecError, TrainingError

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
