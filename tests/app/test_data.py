"""The data directory, before anything is started."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from freehold.app.settings import load
from freehold.app.up import CannotStart, _Supervisor

NOBODY = 65_534


@contextmanager
def as_an_ordinary_user() -> Iterator[None]:
    """Root may write everywhere."""
    before = os.geteuid()
    if before == 0:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(before)


def test_one_that_nothing_can_be_added_to_is_one_sentence() -> None:
    with tempfile.TemporaryDirectory() as data:
        for name in ("run", "logs"):
            Path(data, name).mkdir()
        Path(data, "lock").touch()
        if os.geteuid() == 0:
            for path in (Path(data), *Path(data).iterdir()):
                os.chown(path, NOBODY, -1)
        Path(data).chmod(0o500)
        settings = load({"FREEHOLD_DATA": data})
        supervisor = _Supervisor(settings, lambda said: None, lambda: settings)
        with as_an_ordinary_user(), pytest.raises(CannotStart, match="can't be used: permission denied"):
            supervisor._take_data()
        Path(data).chmod(0o700)
