"""People label pairs of a run in a browser: `rlaif review`."""
