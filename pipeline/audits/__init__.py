"""Checks on data before anything is trained on it."""
