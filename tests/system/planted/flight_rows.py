"""The row function of the flights that faults are planted in."""

from __future__ import annotations

import numpy as np


def speed_of(distance, air_time):
    """Miles per hour; missing where a flight takes no time."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return {"speed": np.where(air_time > 0, distance / air_time * 60, np.nan)}
