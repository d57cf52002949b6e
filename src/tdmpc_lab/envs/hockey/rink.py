"""The bodies of the game, in the one order that keeps trajectories the same.

Box2D numbers what is created, and solves contacts in the order of those numbers. Another order of creation
or destruction gives trajectories that differ in the last bit, and soon in all bits.

Box2D is imported here, so that it survives `python -W error`: its binary warns of a deprecation while it is loaded,
and where warnings are errors, Python crashes on it.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from typing import Any

from tdmpc_lab.envs.hockey.constants import GOAL_SIZE, RACKETFACTOR, RACKETPOLY, SCALE, VIEWPORT_H, H, W

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from Box2D import b2BodyDef, b2CircleShape, b2ContactListener, b2FixtureDef, b2PolygonShape, b2World

__all__ = ["b2BodyDef", "b2CircleShape", "b2ContactListener", "b2FixtureDef", "b2PolygonShape", "b2World"]


Body = Any
"""A `Box2D.b2Body`; the package has no types."""
XY = tuple[float, float]
Colour = tuple[int, int, int]

BLACK = (0, 0, 0)
WHITE = (255, 255, 255)
GREY = (204, 204, 204)
OCHRE = (239, 203, 138)
ORANGE = (235, 98, 53)
BLUE = (93, 158, 199)

# Collision categories: the puck meets what solid stands for, and so do the players with each other and the walls.
NOTHING = 0x000
PUCK = 0x001
SOLID = 0x010
WALL = SOLID | PUCK

_GOAL_X = 245 / SCALE
_GOAL_DEPTH = 10 / SCALE
_POST = (VIEWPORT_H - SCALE) / 2 - GOAL_SIZE  # pixels from the middle of a wall to the mouth of the goal
_POST_POLYGON = [(-10, _POST), (10, _POST - 7), (10, -5), (-10, -5)]
_BOARD_POLYGON = [(-250, 10), (-250, -10), (250, -10), (250, 10)]
_GOAL_POLYGON = [(-10, GOAL_SIZE), (10, GOAL_SIZE), (10, -GOAL_SIZE), (-10, -GOAL_SIZE)]


@dataclass(kw_only=True)
class Rink:
    """Everything in the world of one episode."""

    scenery: list[Body]
    """Decorations and walls; nothing in it moves."""
    goal_player_1: Body
    goal_player_2: Body
    player1: Body
    player2: Body
    puck: Body

    def drawlist(self) -> list[Body]:
        """What is drawn, in this order. The goals are no more than sensors."""
        return [*self.scenery, self.player1, self.player2, self.puck]

    def destroy(self, world: b2World) -> None:
        """Take all bodies out of the world, in the order that leaves its free lists as they should be."""
        for body in (self.player1, self.player2, self.puck, self.goal_player_1, self.goal_player_2, *self.scenery):
            world.DestroyBody(body)


def build_scenery(world: b2World) -> list[Body]:
    """Decorations, then walls."""
    return [_build(world, definition, colour) for definition, colour in _scenery()]


def build_goals(world: b2World) -> tuple[Body, Body]:
    """Player one's goal on the left, then player two's."""
    left, right = (_build(world, definition, WHITE) for definition in _goals())
    return left, right


def build_player(world: b2World, position: XY, *, one: bool) -> Body:
    """A racket whose flat front looks at the opponent.

    Its centre of mass is not its origin: positions are those of the origin, velocities those of the centre.
    """
    body = world.CreateDynamicBody(position=position, angle=0.0, fixtures=_racket(one=one))
    return _coloured(body, ORANGE if one else BLUE)


def build_puck(world: b2World, position: XY) -> Body:
    """The puck, at rest."""
    body = world.CreateDynamicBody(position=position, angle=0.0, fixtures=_disc_of_the_puck(), linearDamping=0.05)
    return _coloured(body, BLACK)


# Definitions are made once: making them takes longer than making the bodies, and Box2D for Python never frees
# the shape of a fixture definition.


@cache
def _scenery() -> list[tuple[b2BodyDef, Colour]]:
    top, bottom = H - 0.5, 0.5
    left, right = W / 2 - _GOAL_X, W / 2 + _GOAL_X
    return [
        _disc((W / 2, H / 2), 100, GREY),
        _disc((W / 2 - 250 / SCALE, H / 2), 75, OCHRE),
        _cover((W / 2 - 240 / SCALE, H / 2), [(0, 100), (100, 100), (100, -100), (0, -100)]),
        _disc((W / 2 + 250 / SCALE, H / 2), 75, OCHRE),
        _cover((W / 2 + 140 / SCALE, H / 2), [(100, 100), (0, 100), (0, -100), (100, -100)]),
        _wall((W / 2, top), _BOARD_POLYGON),
        _wall((W / 2, bottom), _BOARD_POLYGON),
        _wall((left, top), [(x, -y) for x, y in _POST_POLYGON]),
        _wall((left, bottom), _POST_POLYGON),
        _wall((right, top), [(-x, -y) for x, y in _POST_POLYGON]),
        _wall((right, bottom), [(-x, y) for x, y in _POST_POLYGON]),
    ]


@cache
def _goals() -> list[b2BodyDef]:
    """Each a sensor that sees the puck, and then a wall for players, which the puck passes."""
    shape = _polygon(_GOAL_POLYGON)
    fixtures = [
        b2FixtureDef(shape=shape, density=0, friction=0.1, categoryBits=SOLID, maskBits=PUCK, isSensor=True),
        b2FixtureDef(shape=shape, density=0, friction=0.1, categoryBits=SOLID, maskBits=SOLID),
    ]
    return [
        b2BodyDef(position=(W / 2 - _GOAL_X - _GOAL_DEPTH, H / 2), fixtures=fixtures),
        b2BodyDef(position=(W / 2 + _GOAL_X + _GOAL_DEPTH, H / 2), fixtures=fixtures),
    ]


@cache
def _racket(*, one: bool) -> b2FixtureDef:
    side = 1 if one else -1
    outline = [(side * x / SCALE * RACKETFACTOR, y / SCALE * RACKETFACTOR) for x, y in RACKETPOLY]
    return b2FixtureDef(
        shape=b2PolygonShape(vertices=outline),
        density=200.0 / RACKETFACTOR,
        friction=1.0,
        restitution=0.0,
        categoryBits=SOLID,
        maskBits=WALL,
    )


@cache
def _disc_of_the_puck() -> b2FixtureDef:
    return b2FixtureDef(
        shape=b2CircleShape(radius=13 / SCALE, pos=(0, 0)),
        density=7.0,
        friction=0.1,
        restitution=0.95,
        categoryBits=PUCK,
        maskBits=SOLID,
    )


def _disc(position: XY, radius: float, colour: Colour) -> tuple[b2BodyDef, Colour]:
    shape = b2CircleShape(radius=radius / SCALE, pos=(0, 0))
    return _still(position, b2FixtureDef(shape=shape, categoryBits=NOTHING, maskBits=NOTHING), colour)


def _cover(position: XY, pixels: Iterable[XY]) -> tuple[b2BodyDef, Colour]:
    fixture = b2FixtureDef(shape=_polygon(pixels), categoryBits=NOTHING, maskBits=NOTHING)
    return _still(position, fixture, WHITE)


def _wall(position: XY, pixels: Iterable[XY]) -> tuple[b2BodyDef, Colour]:
    fixture = b2FixtureDef(
        shape=_polygon(pixels), density=0, friction=0.1, restitution=0.0, categoryBits=WALL, maskBits=WALL
    )
    return _still(position, fixture, BLACK)


def _still(position: XY, fixture: b2FixtureDef, colour: Colour) -> tuple[b2BodyDef, Colour]:
    return b2BodyDef(position=position, fixtures=fixture), colour


def _polygon(pixels: Iterable[XY]) -> b2PolygonShape:
    return b2PolygonShape(vertices=[(x / SCALE, y / SCALE) for x, y in pixels])


def _build(world: b2World, definition: b2BodyDef, colour: Colour) -> Body:
    return _coloured(world.CreateBody(definition), colour)


def _coloured(body: Body, colour: Colour) -> Body:
    body.color1 = body.color2 = colour
    return body
