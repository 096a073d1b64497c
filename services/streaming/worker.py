"""Streaming: JSON lines in, predictions out, for as long as they come: `python worker.py`, or `mlworkbench stream`.

The environment says what is read and written (README.md); nothing here computes.
"""

from __future__ import annotations

from mlworkbench import streaming_worker

if __name__ == "__main__":
    streaming_worker()
