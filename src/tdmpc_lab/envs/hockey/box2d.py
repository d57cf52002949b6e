"""Box2D, imported so that it survives `python -W error`.

Its binary warns of a deprecation while it is loaded; where warnings are errors, Python crashes on it.
"""

from __future__ import annotations

import warnings

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from Box2D import b2BodyDef, b2CircleShape, b2ContactListener, b2FixtureDef, b2PolygonShape, b2World

__all__ = ["b2BodyDef", "b2CircleShape", "b2ContactListener", "b2FixtureDef", "b2PolygonShape", "b2World"]
