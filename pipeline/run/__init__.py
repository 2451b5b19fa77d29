"""One run, from a recipe to a report: start or resume it, take it through its phases."""
