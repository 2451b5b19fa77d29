"""One run, from a recipe to a report: its start, its phases, and the nightly refresh."""
