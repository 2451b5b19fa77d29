"""Workers: actors of a Ray cluster that make the rows of shards, each with an engine of its own.

In:  shard-stages, handed out by the driver of a run (`stages.runner`)
Out: attempts, files of rows that count once the driver has written their manifest

    cluster.py  the connection to Ray, and what it has room for
    actor.py    what runs in a worker
    pool.py     the workers of one engine, as the driver sees them: who works on what, who died
    runner.py   the runner whose shard-stages are made by pools

A worker that was given up for dead and ends its work later has written a file that no manifest
names. So no text of two attempts ever mixes, and no clock or lock is shared.

Does not: import Ray where a recipe does not ask for it. Does not find rows that a lost machine
kept to itself: the run's folder has to be one that every machine sees.
"""
