"""What happens when the puck touches something: goals and catches."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tdmpc_lab.envs.hockey.box2d import b2ContactListener
from tdmpc_lab.envs.hockey.constants import MAX_TIME_KEEP_PUCK

if TYPE_CHECKING:
    from tdmpc_lab.envs.hockey.core import HockeyEnv


class ContactDetector(b2ContactListener):  # type: ignore[misc]  # Box2D has no types
    """Sees goals and catches; the order of the four rules matters when both happen in one step."""

    def __init__(self, env: HockeyEnv) -> None:
        super().__init__()
        self.env = env

    def BeginContact(self, contact: Any) -> None:  # noqa: N802  the name is Box2D's
        """Two bodies began to touch."""
        env = self.env
        pair = (contact.fixtureA.body, contact.fixtureB.body)
        if env.puck not in pair:
            return
        if env.goal_player_2 in pair:
            env.score(1)
        if env.goal_player_1 in pair:
            env.score(-1)
        if not env.keep_mode:
            return
        puck_vx = env.puck.linearVelocity.x
        if env.player1 in pair and puck_vx < 0.1 and env.player1_has_puck == 0:
            env.player1_has_puck = MAX_TIME_KEEP_PUCK
        if env.player2 in pair and puck_vx > -0.1 and env.player2_has_puck == 0:
            env.player2_has_puck = MAX_TIME_KEEP_PUCK

    # Box2D calls these for every contact in every step; without them each call goes back into C++.
    def EndContact(self, contact: Any) -> None:  # noqa: N802
        """Nothing to do."""

    def PreSolve(self, contact: Any, oldManifold: Any) -> None:  # noqa: N802, N803
        """Nothing to do."""

    def PostSolve(self, contact: Any, impulse: Any) -> None:  # noqa: N802
        """Nothing to do."""
