"""Faults inside running processes of a test, switched by a file: without its name in the environment nothing is done.

The file holds the name of the fault that is to be, and perhaps a word for it; no file, no fault. Each faulty step
stands beside the right one and calls it, so that a running service goes from right to wrong and back between requests.
"""

import os

if os.environ.get("MLWORKBENCH_TEST_FAULT"):
    from planted_steps import plant_all

    plant_all()
