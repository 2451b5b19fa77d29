"""Prefect flows: they chain what `pipeline` does and show it; nothing in `pipeline` imports them."""
