"""What one data directory remembers of the protocols, and what a chain that has lost them does to it."""

from pathlib import Path

import pytest
from tests.chain.defi.lab import fetched
from tests.chain.lab import START_S, USDC, Anvil

from freehold.chain.defi import kept
from freehold.chain.deploy import deploy_dev
from freehold.chain.model import Deployment
from freehold.chain.problems import NoMarkets, WalletRefused

ZERO = "0x" + "00" * 20
pytestmark = pytest.mark.timeout(1_200)  # the first test of all fetches and compiles


async def test_they_outlive_the_chains_restart_and_not_its_loss(tmp_path: Path) -> None:
    packages = await fetched()
    options = ("--timestamp", str(START_S), "--state", str(tmp_path / "state.json"))
    anvil = Anvil(*options)
    await anvil.start()
    deployment = await deploy_dev(anvil.rpc, USDC)
    with pytest.raises(NoMarkets, match="`freehold dev defi` makes them"):
        await kept.find(anvil.rpc, deployment, tmp_path)
    assert kept.missing(tmp_path)
    (tmp_path / kept.PACKAGES).symlink_to(packages)
    assert not kept.missing(tmp_path)
    made, new = await kept.ensure(anvil.rpc, deployment, tmp_path, say=print)
    assert new
    await anvil.stop()

    (tmp_path / kept.PACKAGES).unlink()  # nothing is fetched, or read, for what stands
    await anvil.start()
    assert await kept.ensure(anvil.rpc, deployment, tmp_path, say=print) == (made, False)
    assert await kept.find(anvil.rpc, deployment, tmp_path) == made
    await anvil.stop()

    (tmp_path / "state.json").unlink()
    await anvil.start()
    assert await deploy_dev(anvil.rpc, USDC) == deployment  # at the same addresses, on a chain without protocols
    with pytest.raises(NoMarkets):
        await kept.find(anvil.rpc, deployment, tmp_path)
    (tmp_path / kept.PACKAGES).symlink_to(packages)
    assert (await kept.ensure(anvil.rpc, deployment, tmp_path, say=print, ripen=False))[1]
    await anvil.stop()


async def test_nothing_is_fetched_for_a_chain_of_others(tmp_path: Path) -> None:
    anvil = Anvil("--chain-id", "31337")
    await anvil.start()
    deployment = Deployment(31337, {}, ZERO, 0, 0)
    with pytest.raises(WalletRefused, match="the dev chain only"):
        await kept.ensure(anvil.rpc, deployment, tmp_path, say=print)
    assert not any((tmp_path / name).exists() for name in (kept.FILE, kept.PACKAGES))
    await anvil.stop()
