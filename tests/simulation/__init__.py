"""A deterministic simulation of ingest, outbox and holds: one seed owns scheduling, time, disk, providers, people and every fault.

`loop` runs what is ready in an order the seed draws, on virtual time. `store` commits in memory through the real look-ups, decisions and
statements. `outside` are the providers, `process` the hub's process, `world` the people and the disasters.
`model` is what must be true, in plain dicts.

    python -m tests.simulation 839            a seed again, with all that happened in it
    python -m tests.simulation --storm 36     the same in the weather of test_found

What it does not cover: real disks and threads, PostgreSQL, several processes on one database (the kill and chaos runs do).
"""
