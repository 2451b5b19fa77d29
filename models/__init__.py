"""Models that ship with the repository: one folder each, with weights, card and build recipe."""
