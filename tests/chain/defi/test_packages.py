"""Other people's packages: named with their licences first, fetched by hash, and only the files that are used."""

from dataclasses import replace
from pathlib import Path

import pytest

from freehold.chain.defi import packages
from freehold.chain.problems import PackageUnavailable

CORE = packages.PACKAGES[0]


@pytest.fixture
def only_core(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packages, "PACKAGES", (CORE,))


def test_every_package_is_shown_with_its_licence_before_anything_is_fetched() -> None:
    shown = packages.licences()
    for package in packages.PACKAGES:
        assert f"{package.name} {package.version}" in shown
        assert package.licence in shown


def test_nothing_is_there_at_first(tmp_path: Path) -> None:
    assert packages.missing(tmp_path / "nowhere") == list(packages.PACKAGES)
    with pytest.raises(PackageUnavailable, match=r"@uniswap/v3-core 1\.0\.1 can't be used: .* is not there"):
        packages.v3(tmp_path, "v3-core", "UniswapV3Factory")


@pytest.mark.usefixtures("only_core")
@pytest.mark.timeout(600)  # a download, on a machine that may be busy
async def test_a_fetched_package_holds_the_files_that_are_used_and_its_licence(tmp_path: Path) -> None:
    said: list[str] = []
    await packages.fetch(tmp_path, said.append)
    assert said == [f"Fetching {CORE.name} {CORE.version} ({CORE.licence})."]
    assert packages.missing(tmp_path) == []
    assert len(packages.v3(tmp_path, "v3-core", "UniswapV3Factory")["bytecode"]) > 40_000
    files = _files(tmp_path / CORE.folder)
    assert "LICENSE" in files
    assert all(name in (".fetched", "LICENSE") or name.startswith("artifacts/contracts/UniswapV3") for name in files)
    await packages.fetch(tmp_path, said.append)  # there already
    assert len(said) == 1


def _files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


@pytest.mark.timeout(600)
async def test_a_package_with_another_hash_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packages, "PACKAGES", (replace(CORE, sha512="AAAA"),))
    with pytest.raises(PackageUnavailable, match="another hash than it should"):
        await packages.fetch(tmp_path, print)
    assert packages.missing(tmp_path) == list(packages.PACKAGES)


@pytest.mark.timeout(600)
async def test_a_package_that_npm_does_not_give_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packages, "PACKAGES", (replace(CORE, version="0.0.0-none"),))
    with pytest.raises(PackageUnavailable, match=r"^@uniswap/v3-core 0\.0\.0-none can't be used: "):
        await packages.fetch(tmp_path, print)
