"""What moves the players and the puck: forces from actions, the limits of each half, the shot.

Box2D computes in float32, and so did NumPy and Box2D's vectors in what the rules are defined by. Python
computes in float64, so every rounding to float32 that belongs to a rule is written out (`f32`). For one
sum, product, quotient or root of float32 numbers, float64 and one rounding give the float32 result exactly.
A force handed to Box2D is rounded by Box2D.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from ctypes import c_float

from tdmpc_lab.envs.hockey.constants import (
    CENTER_X,
    FORCEMULTIPLIER,
    MAX_ANGLE,
    MAX_PLAYER_SPEED,
    MAX_PUCK_SPEED,
    SCALE,
    SHOOTFORCEMULTIPLIER,
    TIME_STEP,
    TORQUEMULTIPLIER,
    ZONE,
    H,
    W,
)
from tdmpc_lab.envs.hockey.rink import Body


def f32(value: float) -> float:
    """`value` rounded to float32."""
    return c_float(value).value


def distance(a: Iterable[float], b: Iterable[float]) -> float:
    """Distance of two points in metres, of which the differences are rounded to float32 and the rest is not."""
    (ax, ay), (bx, by) = a, b
    dx, dy = f32(ax - bx), f32(ay - by)
    return math.sqrt(dx * dx + dy * dy)


_DT32 = f32(TIME_STEP)
_STRIP_ONE, _STRIP_TWO = CENTER_X - ZONE, CENTER_X + ZONE
_LEFT, _RIGHT = W / 2 - 210 / SCALE, W / 2 + 210 / SCALE
_BOTTOM, _TOP = 1.2, H - 1.2


def push_player(player: Body, ax: float, ay: float, *, one: bool) -> None:
    """Apply the force of one player's action (float32 numbers in [−1, 1], seen from his own side)."""
    velocity, x = player.linearVelocity, player.position.x
    vx, vy = velocity.x, velocity.y
    scale = FORCEMULTIPLIER if one else -FORCEMULTIPLIER
    fx, fy = f32(ax * scale), f32(ay * scale)

    if (one and x > _STRIP_ONE) or (not one and x < _STRIP_TWO):
        # In the strip: no own force, the speed towards the middle is reversed, and a spring pushes back.
        mass = player.mass
        spring = (-1 if one else 1) * (x - CENTER_X)
        forwards = vx > 0 if one else vx < 0
        stop = f32(-2 * vx * mass / TIME_STEP) if forwards else 0.0
        player.linearDamping = 20.0
        _apply_inside(player, f32(stop + f32(spring * vx * mass / TIME_STEP)), fy, one=one)
        return

    speed = math.sqrt(vx * vx + vy * vy)
    if speed < MAX_PLAYER_SPEED:
        player.linearDamping = 5.0
        _apply_inside(player, fx, fy, one=one)
        return

    # Too fast: only a force that slows the player down is applied.
    player.linearDamping = 20.0
    mass = player.mass
    after_x = vx + f32(f32(_DT32 * fx) / mass)
    after_y = vy + f32(f32(_DT32 * fy) / mass)
    if math.sqrt(after_x * after_x + after_y * after_y) < speed:
        _apply_inside(player, fx, fy, one=one)


def _apply_inside(player: Body, fx: float, fy: float, *, one: bool) -> None:
    """Apply a force, but stop the player where it would push him out of his half or into a wall."""
    position = player.position
    x, y = position.x, position.y
    if (fx < 0 and ((one and x < _LEFT) or (not one and x < CENTER_X))) or (
        fx > 0 and ((one and x > CENTER_X) or (not one and x > _RIGHT))
    ):
        player.linearVelocity = (0.0, player.linearVelocity.y)
        fx = 0.0
    if (y > _TOP and fy > 0) or (y < _BOTTOM and fy < 0):
        player.linearVelocity = (player.linearVelocity.x, 0.0)
        fy = 0.0
    player.ApplyForceToCenter((fx, fy), True)


def turn_player(player: Body, torque: float) -> None:
    """Apply the torque of one player's action (a float32 number in [−1, 1]); the same for both sides."""
    angle = player.angle
    if abs(angle) <= MAX_ANGLE:
        player.angularDamping = 2.0
        player.ApplyTorque(torque * TORQUEMULTIPLIER, True)
        return
    mass, spin = player.mass, player.angularVelocity
    back = 0.0
    if angle * spin > 0:  # still turning away
        back = -0.1 * spin * mass / TIME_STEP
    back += -0.1 * angle * mass / TIME_STEP
    player.angularDamping = 10.0
    player.ApplyTorque(back, True)


def limit_puck_speed(puck: Body) -> None:
    """Slow the puck down while it is too fast."""
    velocity = puck.linearVelocity
    vx, vy = velocity.x, velocity.y
    puck.linearDamping = 10.0 if math.sqrt(vx * vx + vy * vy) > MAX_PUCK_SPEED else 0.05


def hold_puck(puck: Body, player: Body) -> None:
    """Put the puck where the player's origin is; the contact with the racket pushes it out in the same step."""
    puck.position = player.position
    puck.linearVelocity = player.linearVelocity


def shoot_puck(puck: Body, player: Body, *, one: bool) -> None:
    """Shoot in the direction the racket looks: the velocity changes by 60 m/s within the step."""
    angle, side, mass = player.angle, 1 if one else -1, puck.mass
    force = [
        f32(f32(f32(f32(part * side) * mass) / _DT32) * SHOOTFORCEMULTIPLIER)
        for part in (math.cos(angle), math.sin(angle))
    ]
    puck.ApplyForceToCenter(tuple(force), True)


def shoot_puck_at(puck: Body, target: tuple[float, float]) -> None:
    """Shoot the puck from where it lies at `target`; the force acts in the next step."""
    position, mass = puck.position, puck.mass
    dx, dy = f32(position.x - f32(target[0])), f32(position.y - f32(target[1]))
    length = f32(math.sqrt(f32(f32(dx * dx) + f32(dy * dy))))
    force = [f32(f32(f32(-f32(part / length) * SHOOTFORCEMULTIPLIER) * mass) / _DT32) for part in (dx, dy)]
    puck.ApplyForceToCenter(tuple(force), True)
