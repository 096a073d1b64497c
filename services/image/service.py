"""Serves {{ version }}: `bentoml build` in this folder; nothing here computes."""

from __future__ import annotations

from mlworkbench import realtime_service

Scoring = realtime_service(__name__, shipped="{{ version }}", seal="{{ seal }}")
