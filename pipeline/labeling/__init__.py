"""Labels from models: judges, scores and follow-ups, from their settings to the pairs."""
