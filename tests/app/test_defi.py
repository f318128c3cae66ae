"""`freehold up --defi`: what it says before it fetches, and when it can't."""

from dataclasses import replace
from pathlib import Path

import pytest
from tests.chain.lab import USDC, Anvil

from freehold.app import first
from freehold.chain.defi import kept, packages
from freehold.chain.deploy import deploy_dev
from freehold.chain.model import Deployment
from freehold.host.process import HostError


@pytest.mark.timeout(600)  # npm is asked, on a machine that may be busy
async def test_the_licences_are_shown_before_anything_is_fetched_and_a_failure_is_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    absent = replace(packages.PACKAGES[0], version="0.0.0-none")
    monkeypatch.setattr(packages, "PACKAGES", (absent,))
    anvil = Anvil()
    await anvil.start()
    try:
        deployment = await deploy_dev(anvil.rpc, USDC)
        said: list[str] = []
        with pytest.raises(HostError, match=r"^@uniswap/v3-core 0\.0\.0-none can't be used: "):
            await first.ensure_defi(tmp_path, f"http://127.0.0.1:{anvil.port}", deployment, said.append)
    finally:
        await anvil.stop()
    shown, fetching = said
    assert shown.startswith("Started with --defi, which takes your agreement as given.")
    assert packages.licences() in shown
    assert fetching.startswith("Fetching @uniswap/v3-core")
    assert not (tmp_path / kept.FILE).exists()


async def test_on_a_chain_of_others_it_is_refused(tmp_path: Path) -> None:
    elsewhere = Deployment(31337, {}, "0x" + "00" * 20, 0, 0)
    with pytest.raises(HostError, match=r"onto the dev chain only .* this is chain 31337: leave --defi out"):
        await first.ensure_defi(tmp_path, "http://127.0.0.1:9", elsewhere, print)
    assert not (tmp_path / kept.PACKAGES).exists()
