"""Write the generated files, or with `--check` fail when one isn't what would be written now."""

import sys
from pathlib import Path

from freehold.app import settings
from freehold.cli import reference as cli
from freehold.gateway.account import reference as account
from freehold.planner.report import reference as planner

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "docs" / "reference"


def pages() -> dict[str, str]:
    """Every generated page of docs/reference, by file name."""
    return {**cli.pages(), **account.pages(), **planner.pages(), "settings.md": settings.reference()}


def outdated() -> list[str]:
    """The pages that aren't what would be written now."""
    return [
        name
        for name, text in pages().items()
        if not (FOLDER / name).is_file() or (FOLDER / name).read_text("utf-8") != text
    ]


if __name__ == "__main__":
    stale = outdated()
    if "--check" in sys.argv[1:]:
        for each in stale:
            sys.stderr.write(f"docs/reference/{each} is out of date: run `make generate`.\n")
        sys.exit(1 if stale else 0)
    for each in stale:
        (FOLDER / each).write_text(pages()[each], "utf-8")
        sys.stdout.write(f"docs/reference/{each}\n")
