"""Real-time scoring: `bentoml serve service:Scoring` in this folder, or `mlworkbench serve` anywhere.

The environment says what is served (README.md); nothing here computes.
"""

from __future__ import annotations

from mlworkbench import realtime_service

Scoring = realtime_service(__name__)
