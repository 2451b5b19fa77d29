"""The command `rlaif`: `app` has the commands, the other modules do what they say."""

from pipeline.cli.app import app, main

__all__ = ["app", "main"]
