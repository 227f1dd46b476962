"""The fault matrix against the real server as a process: `python -m bench.chaos` (`make chaos`).

What is promised is listed in `matrix`; where the server can be killed, in `victim`. The providers and the customers live in
the runner, outlive the server, and count what they got.
"""
