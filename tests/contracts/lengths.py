"""How long the random tests run: short in the suite, as long as one likes by `make laws`."""

import os


def histories(in_suite: int) -> int:
    """Of a stateful machine; HISTORIES sets it."""
    return int(os.environ.get("HISTORIES", in_suite))


def draws(in_suite: int) -> int:
    """Of a formula against its oracle; DRAWS sets it."""
    return int(os.environ.get("DRAWS", in_suite))


def limit_s(in_suite: int) -> int:
    """The time that a test may take; none (0) at length."""
    return 0 if {"HISTORIES", "DRAWS"} & set(os.environ) else in_suite
