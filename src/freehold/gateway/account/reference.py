"""Writes docs/reference/openapi.json from the account API's routes.

`python -m freehold.gateway.account.reference [FOLDER]`
"""

import json
import sys
from pathlib import Path

from freehold.gateway.account.application import describe

FOLDER = Path("docs/reference")


def pages() -> dict[str, str]:
    """The generated pages, by file name."""
    return {"openapi.json": json.dumps(describe(), indent=2, ensure_ascii=False) + "\n"}


def main() -> None:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in pages().items():
        (folder / name).write_text(text, "utf-8")


if __name__ == "__main__":
    main()
