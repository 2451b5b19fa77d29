"""Stages (rows in, rows out) and the runner that takes shards through them."""
