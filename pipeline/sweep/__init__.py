"""Sweeps: one recipe run at several values of its fields, and one page that compares them."""
