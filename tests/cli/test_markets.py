"""Other people's protocols on the development chain: deployed on request, found again, and where they aren't, said so."""

import re
import shutil
from pathlib import Path

import pytest

from freehold.chain.defi.packages import PACKAGES

from .conftest import Server

pytestmark = pytest.mark.timeout(1_200)  # the first test of all fetches and compiles


def test_a_server_started_with_them_knows_where_they_are(market_server: Server) -> None:
    found = market_server.json("dev", "defi")
    assert found["deployed_now"] is False
    assert next(iter(found["pools"])) == "DIEM"
    assert re.fullmatch(r"0x[0-9a-fA-F]{40}", found["pools"]["DIEM"]["address"])
    assert list(found["markets"]) == list(found["pools"])[:2]
    said = market_server.run("dev", "defi")
    assert said.stdout.startswith("They are deployed already.")
    for symbol, pool in found["pools"].items():
        assert re.search(rf"{symbol} +0\.3 % +{pool['address']}", said.stdout)


def test_licences_are_shown_and_nothing_is_fetched_without_agreement(server: Server) -> None:
    for answer in (None, "n\n"):
        refused = server.run("dev", "defi", stdin=answer)
        assert refused.exit_code == 1
        for package in PACKAGES:
            assert f"{package.name} {package.version}" in refused.stderr
            assert package.licence in refused.stderr
        assert "Nothing was fetched. `freehold dev defi --yes` agrees to these licences" in refused.stderr
    assert not (server.data / "defi").exists()
    assert not (server.data / "defi.toml").exists()


def test_they_are_deployed_anew_when_what_is_remembered_is_of_other_contracts(
    market_server: Server, tmp_path: Path
) -> None:
    kept = market_server.data / "defi.toml"
    before = shutil.copy(kept, tmp_path / "defi.toml")
    kept.write_text(_other_vault(kept.read_text()))
    try:
        done = market_server.run("dev", "defi")
        assert done.exit_code == 0, done.output
        assert done.stdout.startswith("Uniswap v3 and Morpho Blue are deployed.")
        assert "Fetching" not in done.stderr
        assert "Seeding pools" in done.stderr
        assert market_server.json("dev", "defi")["deployed_now"] is False
    finally:
        shutil.copy(before, kept)


def _other_vault(toml: str) -> str:
    return re.sub(r'vault = "0x[0-9a-fA-F]{40}"', f'vault = "0x{"ab" * 20}"', toml)


def test_a_server_elsewhere_does_not_tell_where_they_are(market_server: Server, tmp_path: Path) -> None:
    refused = market_server.run("dev", "defi", "--url", market_server.url, home=tmp_path)
    assert refused.exit_code == 1
    assert "kept in the data folder of the server" in refused.stderr
