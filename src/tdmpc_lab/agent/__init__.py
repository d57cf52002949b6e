"""A TD-MPC2 agent that needs torch and numpy only: usable in a notebook.

agent = Agent(observation_dim=3, action_dim=1, episode_length=200)
state = agent.plan_state(envs=1, seed=0)
action = agent.act(observations, state, explore=True)      # (1, 3) → (1, 1) in [−1, 1]
losses = agent.update(replay.sample(256))
"""

from tdmpc_lab.agent.agent import Agent, PlanState, discount_for
from tdmpc_lab.agent.device import resolve_device
from tdmpc_lab.agent.planner import MPPI, Plan
from tdmpc_lab.agent.replay import Batch, Episode, Replay
from tdmpc_lab.agent.world_model import WorldModel, parameter_counts
from tdmpc_lab.config.schema import AgentConfig, PlannerConfig

__all__ = [
    "MPPI",
    "Agent",
    "AgentConfig",
    "Batch",
    "Episode",
    "Plan",
    "PlanState",
    "PlannerConfig",
    "Replay",
    "WorldModel",
    "discount_for",
    "parameter_counts",
    "resolve_device",
]
