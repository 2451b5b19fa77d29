"""Models that this program loads itself, with vLLM."""
