"""The clients' own environment: made once from the lock beside this file, kept in .setup, shared by all tests."""

import fcntl
import hashlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
LOCK = HERE / "requirements.lock"
FOLDER = ROOT / ".setup" / "clients"


def _bootstrap() -> ModuleType:
    """The script that sets up this checkout, which finds uv and runs it."""
    spec = importlib.util.spec_from_file_location("bootstrap", ROOT / "scripts" / "bootstrap.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def binaries() -> Path:
    """The environment's folder of programs, installed if it isn't what the lock says."""
    wanted = hashlib.sha256(LOCK.read_bytes() + sys.version.encode() + str(ROOT).encode()).hexdigest()
    stamp = FOLDER.with_suffix(".stamp")
    FOLDER.parent.mkdir(exist_ok=True)
    with FOLDER.with_suffix(".lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        if not stamp.is_file() or stamp.read_text() != wanted or not (FOLDER / "bin" / "python").exists():
            bootstrap = _bootstrap()
            uv = bootstrap.ensure_uv()
            python = str(FOLDER / "bin" / "python")
            bootstrap.run("Making the clients' environment", [uv, "venv", "-q", "--clear", "--python", sys.executable, str(FOLDER)])  # fmt: skip
            bootstrap.run("Installing the clients", [uv, "pip", "sync", "-q", "--require-hashes", "--python", python, str(LOCK)])  # fmt: skip
            stamp.write_text(wanted)
    return FOLDER / "bin"
