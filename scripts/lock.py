"""Resolve the lock files anew from pyproject.toml. They hold hashes, and no address of any registry."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LOCKS: dict[str, list[str]] = {
    "requirements.lock": ["pyproject.toml", "--group", "build"],
    "requirements-dev.lock": ["pyproject.toml", "--group", "dev", "-c", "requirements.lock"],
    "requirements-models.lock": ["--group", "models", "--no-deps"],
    "requirements-setup.lock": ["--group", "setup"],
    "tests/clients/requirements.lock": ["tests/clients/requirements.in"],
}
OPTIONS = [
    "--quiet",
    "--universal",
    "--python-version=3.11",
    "--generate-hashes",
    "--no-emit-index-url",
    "--no-emit-find-links",
    "--no-header",
    "--no-annotate",
]


def compile_lock(name: str, target: Path, *extra: str) -> None:
    """Write one lock file; what it already holds is kept unless `--upgrade` is among `extra`."""
    sys.path.insert(0, str(ROOT / "scripts"))
    from bootstrap import ensure_uv  # type: ignore[import-not-found]

    subprocess.run(  # noqa: S603 - fixed arguments
        [ensure_uv(), "pip", "compile", *OPTIONS, *LOCKS[name], *extra, "-o", str(target)], cwd=ROOT, check=True
    )


if __name__ == "__main__":
    for each in LOCKS:
        compile_lock(each, ROOT / each, *sys.argv[1:])
        sys.stdout.write(f"{each}\n")
