"""Trained agents and their networks: named, evaluated, played, exported, described, timed, compared."""
