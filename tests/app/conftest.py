"""Puts this folder's fixtures in reach of the tests below it."""
