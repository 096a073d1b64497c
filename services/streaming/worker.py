"""Streaming: JSON lines in, predictions out, for as long as they come: `python worker.py`, or `mlworkbench stream`.

The environment says what is read and written (README.md); nothing here computes.
"""

from __future__ import annotations

from mlworkbench.deploy import guard, stream_worker

if __name__ == "__main__":
    guard.attempt(stream_worker.main)
