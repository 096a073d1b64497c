"""How long the workbench takes to start, as ratios to an empty interpreter measured in the same run.

Each command is run in turn, round by round, so that a slow moment of the machine falls on all of them; the median of
the rounds is compared. Goals: import at most 3 times, help at most 15 times an empty interpreter.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

ROUNDS = 15
GOALS = {"import mlworkbench": 3.0, "mlworkbench --help": 15.0}
COMMANDS = {
    "empty interpreter": [sys.executable, "-c", "pass"],
    "import mlworkbench": [sys.executable, "-c", "import mlworkbench"],
    "mlworkbench --help": [sys.executable, "-m", "mlworkbench.cli.app", "--help"],
}


def seconds(command: list[str]) -> float:
    """Wall-clock seconds of one run of a command, its output thrown away."""
    begin = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - begin


def main() -> int:
    """Print the ratios; 1 when one misses its goal."""
    taken: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(ROUNDS):
        for name, command in COMMANDS.items():
            taken[name].append(seconds(command))
    floor = statistics.median(taken["empty interpreter"])
    missed = 0
    for name, goal in GOALS.items():
        ratio = statistics.median(taken[name]) / floor
        missed += ratio > goal
        print(f"{name:20} {ratio:5.1f} times an empty interpreter (goal: at most {goal:g})")
    return int(missed > 0)


if __name__ == "__main__":
    sys.exit(main())
