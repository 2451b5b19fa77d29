"""The command `rlaif`: `app.py` has the commands, the other modules do what they say."""

import sys

__all__ = ["main"]


def main() -> None:
    """Load the command and run it; Ctrl-C is no traceback in the second that this takes either."""
    try:
        from pipeline.cli.app import main as run
    except KeyboardInterrupt:
        sys.exit(130)
    run()
