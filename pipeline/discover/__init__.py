"""What do labels reward? Principles found from preference data: `rlaif constitution discover`."""
