"""Measurements of a running hub: `python -m bench`. How to read them: docs/performance.md."""
