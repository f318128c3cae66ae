"""List the locked packages that have no wheel for a platform: what would have to be compiled there, or can't be had.

Asks the package index by uv. Exit code 0: it informs. Platforms and Pythons that nothing is missing for say so.
"""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PLATFORMS = {
    "Linux x86-64": "x86_64-manylinux_2_28",
    "Linux arm64": "aarch64-manylinux_2_28",
    "macOS arm64": "aarch64-apple-darwin",
    "macOS x86-64": "x86_64-apple-darwin",
}
PYTHONS = ("3.11", "3.12")
LOCKS = ("requirements.lock", "requirements-dev.lock", "requirements-models.lock")
_LOCKED = re.compile(r"^([a-z0-9][a-z0-9._-]*==[^ ;\\]+)(?: *; *([^\\]*[^\\ ]))?", re.MULTILINE)


def locked(lock: Path) -> list[str]:
    """Each requirement of a lock file with its marker, without its hashes."""
    return [f"{pin} ; {marker}" if marker else pin for pin, marker in _LOCKED.findall(lock.read_text("utf-8"))]


def missing(uv: str, requirements: list[str], platform: str, python: str) -> list[str]:
    """Those without a wheel. All are asked for together; while that fails, the one that uv names is taken out."""
    left = list(requirements)
    out: list[str] = []
    while True:
        asked = subprocess.run(  # noqa: S603 - our own uv
            [
                *(uv, "pip", "compile", "-", "--no-deps", "--quiet", "--no-header", "--no-annotate"),
                *("--only-binary", ":all:", "--python-platform", platform, "--python-version", python),
            ],
            input="\n".join(left),
            capture_output=True,
            text=True,
            cwd="/",
            check=False,
        )
        if asked.returncode == 0:
            return out
        named = [pin for pin in left if re.search(rf"\b{re.escape(pin.split('==')[0])}\b", asked.stderr)]
        if not named:
            raise SystemExit(f"uv failed: {asked.stderr.strip()}")
        out.append(named[0])
        left.remove(named[0])


def main() -> int:
    sys.path.insert(0, str(ROOT / "scripts"))
    from bootstrap import ensure_uv  # type: ignore[import-not-found]

    uv = ensure_uv()
    for lock in LOCKS:
        for name, platform in PLATFORMS.items():
            for python in PYTHONS:
                lacking = missing(uv, locked(ROOT / lock), platform, python)
                named = ", ".join(pin.split(" ;")[0] for pin in lacking)
                shown = f"no wheel for {named}" if named else "a wheel for each package"
                sys.stdout.write(f"{lock}, {name}, Python {python}: {shown}\n")
                sys.stdout.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
