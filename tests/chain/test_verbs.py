"""The contracts on a real dev chain: deployment, wallets, every verb and its refusals."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from tests.chain.lab import START_S, USDC, Anvil

from freehold.chain import deployments, dev, verbs
from freehold.chain.contracts import Contracts
from freehold.chain.deploy import deploy_dev
from freehold.chain.model import AllowanceChanged, Deployment, Deposited
from freehold.chain.problems import DeploymentBroken, NotEnough, NotMined, Reverted, WalletRefused
from freehold.chain.reader import LogReader
from freehold.chain.rpc import Rpc
from freehold.chain.wallet import DevWallet, read
from freehold.clock import DAY_S, Day
from freehold.db import Database
from freehold.problems import InvalidRequest, Problem

ONE = 10**18
USD = 10**6


@dataclass
class Town:
    """A dev chain that mines each transaction as it comes, with the contracts on it."""

    anvil: Anvil
    deployment: Deployment

    @property
    def rpc(self) -> Rpc:
        return self.anvil.rpc

    async def wallet(self, name: str, *, hold: int = 0, usdc: int = 0) -> DevWallet:
        if hold or usdc:
            await dev.fund(self.rpc, self.deployment, name, hold=hold, usdc=usdc)
        return await DevWallet.open(self.rpc, name)

    async def holder(self, name: str, diem: int) -> DevWallet:
        """A wallet with newly minted DIEM."""
        wallet = await self.wallet(name, hold=1_000 * ONE)
        await verbs.stake_hold(wallet, self.deployment, 1_000 * ONE)
        await verbs.mint(wallet, self.deployment, diem)
        return wallet


@pytest.fixture
async def town() -> AsyncIterator[Town]:
    anvil = Anvil("--timestamp", str(START_S))
    await anvil.start()
    yield Town(anvil, await deploy_dev(anvil.rpc, USDC))
    await anvil.stop()


async def refused(work: object) -> str:
    """The sentence with which a verb refuses."""
    with pytest.raises(Problem) as raised:
        await work  # type: ignore[misc]
    return raised.value.message


# ---- deployment


@pytest.mark.parametrize("options", [(), ("--no-mining",), ("--block-time", "1")], ids=["auto", "none", "interval"])
async def test_the_contracts_are_deployed_and_set_up_however_the_chain_mines(options: tuple[str, ...]) -> None:
    anvil = Anvil(*options)
    await anvil.start()
    mined = await anvil.rpc.call("anvil_getAutomine"), await anvil.rpc.call("anvil_getIntervalMining")
    deployment = await deploy_dev(anvil.rpc, USDC)
    contracts = Contracts.of(deployment)
    assert set(deployment.contracts) == set(deployments.CONTRACTS)
    assert await read(anvil.rpc, contracts.staking, "committedOf", deployment.operator) == 40_000 * ONE
    assert await read(anvil.rpc, contracts.vault, "operatorOf", deployment.operator) != ("", "0x" + "00" * 20)
    assert await read(anvil.rpc, contracts.prepaid, "USDC") == deployment.contracts["usdc"]
    assert 90 * ONE <= await read(anvil.rpc, contracts.staking, "quoteLock", ONE) < 91 * ONE
    after = await anvil.rpc.call("anvil_getAutomine"), await anvil.rpc.call("anvil_getIntervalMining")
    assert after == mined
    await anvil.stop()


async def test_a_deployment_that_stands_is_not_made_again(town: Town) -> None:
    head = await town.anvil.head()
    again = await deploy_dev(town.rpc, USDC, recorded=town.deployment, confirmations=5)
    assert again == replace(town.deployment, confirmations=5)
    assert await town.anvil.head() == head


async def test_a_new_chain_is_deployed_to_although_a_deployment_is_recorded(town: Town) -> None:
    fresh = Anvil()
    await fresh.start()
    made = await deploy_dev(fresh.rpc, USDC, recorded=town.deployment)
    assert await fresh.rpc.call("eth_getCode", made.contracts["vault"], "latest") != "0x"
    await fresh.stop()


async def test_a_deployment_that_was_cut_off_is_made_anew(town: Town) -> None:
    snapshot_less = replace(town.deployment, operator=town.deployment.contracts["hold"])  # was never registered
    made = await deploy_dev(town.rpc, USDC, recorded=snapshot_less)
    assert made.contracts["vault"] != town.deployment.contracts["vault"]


async def test_a_dev_chain_of_an_older_freehold_is_deployed_to_anew(town: Town, tmp_path: Path) -> None:
    """Its contracts can't be added to: the vault creates what is missing."""
    path = tmp_path / "deployment.toml"
    deployments.save(path, town.deployment)
    path.write_text(
        "".join(line for line in path.read_text().splitlines(True) if not line.startswith(("strips", "book")))
    )
    older = deployments.load(path)
    assert older.contracts["strips"] == deployments.ABSENT
    made = await deploy_dev(town.rpc, USDC, recorded=older)
    assert made.contracts["vault"] != town.deployment.contracts["vault"]
    assert await read(town.rpc, Contracts.of(made).vault, "STRIPS") == made.contracts["strips"]


def test_an_older_deployment_file_of_another_chain_is_refused_in_words(tmp_path: Path) -> None:
    path = tmp_path / "deployment.toml"
    names = {name: f"0x{n:040x}" for n, name in enumerate(deployments.CONTRACTS, 1)}
    deployments.save(path, Deployment(8453, names, "0x70997970C51812dc3A010C7d01b50e0d17dc79C8", 7, 2))
    path.write_text(
        "".join(line for line in path.read_text().splitlines(True) if not line.startswith(("strips", "book")))
    )
    with pytest.raises(DeploymentBroken, match=r"is of an older Freehold, whose contracts had no strips, book: deploy"):
        deployments.load(path)


async def test_another_chain_is_never_deployed_to() -> None:
    other = Anvil("--chain-id", "31337")
    await other.start()
    with pytest.raises(WalletRefused, match="is on chain 31337, and wallets by name exist on the dev chain only"):
        await deploy_dev(other.rpc, USDC)
    await other.stop()


async def test_missing_usdc_artifacts_are_named(town: Town, tmp_path: Path) -> None:
    with pytest.raises(DeploymentBroken, match="USDC's contract is missing at"):
        await deploy_dev(town.rpc, tmp_path)


def test_a_deployment_file_reads_back_as_it_was_written(tmp_path: Path) -> None:
    names = {name: f"0x{n:040x}" for n, name in enumerate(deployments.CONTRACTS, 1)}
    deployment = Deployment(402031, names, "0x70997970C51812dc3A010C7d01b50e0d17dc79C8", 7, 2)
    path = tmp_path / "deployment.toml"
    deployments.save(path, deployment)
    assert deployments.load(path) == deployment


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (("chain_id = 402031", "chain_id = 'x'"), "needs a number, 0 or more, as chain_id"),
        (("vault = ", "volt = "), r"needs a table \[contracts\] with exactly"),
        (('operator = "0x7', 'operator = "0xz'), "needs an address as operator"),
        (("[contracts]", "[contracts"), "is not TOML"),
    ],
)
def test_a_broken_deployment_file_says_what_is_wrong(tmp_path: Path, change: tuple[str, str], reason: str) -> None:
    names = {name: f"0x{n:040x}" for n, name in enumerate(deployments.CONTRACTS, 1)}
    path = tmp_path / "deployment.toml"
    deployments.save(path, Deployment(402031, names, "0x70997970C51812dc3A010C7d01b50e0d17dc79C8", 7, 2))
    path.write_text(path.read_text().replace(*change))
    with pytest.raises(DeploymentBroken, match=reason):
        deployments.load(path)


def test_a_missing_deployment_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DeploymentBroken, match=r"nothere\.toml can't be read: No such file"):
        deployments.load(tmp_path / "nothere.toml")


# ---- wallets


async def test_a_name_that_no_wallet_has_is_refused_with_those_there_are(town: Town) -> None:
    sentence = await refused(DevWallet.open(town.rpc, "mallory"))
    assert sentence.startswith("There is no dev wallet 'mallory'. There are deployer, operator, alice, bob")


async def test_a_wallet_signs_text_by_the_node(town: Town) -> None:
    from eth_account import Account
    from eth_account.messages import encode_defunct

    alice = await town.wallet("alice")
    signature = await alice.sign("Freehold, schön")
    assert Account.recover_message(encode_defunct(text="Freehold, schön"), signature=signature) == alice.address


async def test_a_transaction_that_is_not_mined_in_time_is_named(town: Town) -> None:
    await dev.fund(town.rpc, town.deployment, "alice", usdc=0)
    await town.rpc.call("evm_setAutomine", False)
    alice = DevWallet(town.rpc, "alice", (await town.wallet("alice")).address, timeout_s=0.3)
    with pytest.raises(NotMined, match=r"is not mined after 0\.3 s"):
        await verbs.transfer(alice, town.deployment, "HOLD", 1, alice.address)


async def test_a_dev_wallet_is_funded_out_of_nothing(town: Town) -> None:
    funded = await dev.fund(town.rpc, town.deployment, "bob")
    has = await verbs.positions(town.rpc, town.deployment, funded.address)
    assert (has.hold, has.usdc) == (dev.FUND_HOLD, dev.FUND_USDC) == (funded.hold, funded.usdc)


# ---- verbs


async def test_hold_is_staked_and_unstaked_after_seven_days(town: Town) -> None:
    alice = await town.wallet("alice", hold=10 * ONE)
    staked = await verbs.stake_hold(alice, town.deployment, 10 * ONE)
    assert (staked.amount, staked.staked) == (10 * ONE, 10 * ONE)
    asked = await verbs.unstake_hold(alice, town.deployment, 4 * ONE)
    assert (asked.token, asked.amount, asked.ready_at_s) == ("HOLD", 4 * ONE, asked.at_s + 7 * DAY_S)
    early = await refused(verbs.withdraw(alice, town.deployment, "HOLD", asked.id))
    assert f"request {asked.id} can be withdrawn at 2027-01-22T08:00:" in early
    await town.rpc.call("evm_increaseTime", 7 * DAY_S)
    taken = await verbs.withdraw(alice, town.deployment, "HOLD", asked.id)
    assert taken.amount == 4 * ONE
    has = await verbs.positions(town.rpc, town.deployment, alice.address)
    assert (has.hold, has.staked_hold, has.requests) == (4 * ONE, 6 * ONE, ())


async def test_diem_is_minted_at_the_curve_and_burned(town: Town) -> None:
    alice = await town.wallet("alice", hold=1_000 * ONE)
    await verbs.stake_hold(alice, town.deployment, 1_000 * ONE)
    minted = await verbs.mint(alice, town.deployment, 2 * ONE)
    assert (minted.diem_out, minted.outstanding, minted.locked) == (2 * ONE, 2 * ONE, minted.cost)
    assert 180 * ONE <= minted.cost < 181 * ONE
    more = await verbs.mint_by_lock(alice, town.deployment, 90 * ONE)
    assert ONE * 99 // 100 < more.diem_out < ONE
    burned = await verbs.burn(alice, town.deployment, 2 * ONE)
    assert (burned.diem_in, burned.outstanding) == (2 * ONE, more.diem_out)
    assert burned.locked == minted.cost + more.cost - burned.unlocked


async def test_staked_diem_grants_the_rest_of_the_day_and_each_later_day(town: Town) -> None:
    alice = await town.holder("alice", ONE)
    bob = await town.wallet("bob")
    staked = await verbs.stake_diem(alice, town.deployment, ONE // 2, beneficiary=bob.address)
    left_s = Day.of(staked.at_s).end_s - staked.at_s
    assert (staked.operator, staked.beneficiary) == (town.deployment.operator, bob.address)
    assert (staked.today, staked.onward) == (ONE // 2 * left_s // DAY_S, ONE // 2)
    has = await verbs.positions(town.rpc, town.deployment, alice.address)
    assert has.stakes == (verbs.Stake(town.deployment.operator, bob.address, ONE // 2),)
    assert (has.diem, has.outstanding_diem) == (ONE // 2, ONE)


async def test_staked_diem_is_unstaked_cancelled_and_withdrawn(town: Town) -> None:
    alice = await town.holder("alice", ONE)
    await verbs.stake_diem(alice, town.deployment, ONE)
    first = await verbs.unstake_diem(alice, town.deployment, ONE // 4)
    second = await verbs.unstake_diem(alice, town.deployment, ONE // 4)
    has = await verbs.positions(town.rpc, town.deployment, alice.address)
    assert [request.id for request in has.requests] == [first.id, second.id]
    assert has.requests[0] == verbs.Request("DIEM", first.id, ONE // 4, first.at_s + DAY_S)
    assert (await verbs.cancel(alice, town.deployment, "DIEM", first.id)).amount == ONE // 4
    await town.rpc.call("evm_increaseTime", DAY_S)
    assert (await verbs.withdraw(alice, town.deployment, "DIEM", second.id)).amount == ONE // 4
    has = await verbs.positions(town.rpc, town.deployment, alice.address)
    assert (has.diem, has.stakes[0].amount, has.requests) == (ONE // 4, 3 * ONE // 4, ())
    gone = await refused(verbs.cancel(alice, town.deployment, "DIEM", first.id))
    assert "there is no open request 1: it was withdrawn or cancelled, or never made" in gone


async def test_staked_diem_is_redirected_from_the_next_midnight(town: Town) -> None:
    alice = await town.holder("alice", ONE)
    bob = await town.wallet("bob")
    await verbs.stake_diem(alice, town.deployment, ONE)
    moved = await verbs.redirect(alice, town.deployment, ONE // 4, new_beneficiary=bob.address)
    assert moved.effective_at_s == Day.of(moved.at_s).end_s
    assert (moved.beneficiary, moved.new_beneficiary) == (alice.address, bob.address)
    has = await verbs.positions(town.rpc, town.deployment, alice.address)
    assert {stake.beneficiary: stake.amount for stake in has.stakes} == {
        alice.address: 3 * ONE // 4,
        bob.address: ONE // 4,
    }


async def test_usdc_is_deposited_and_reaches_the_operator(town: Town) -> None:
    alice = await town.wallet("alice", usdc=5 * USD)
    bob = await town.wallet("bob")
    made = await verbs.deposit(alice, town.deployment, 5 * USD, beneficiary=bob.address)
    assert (made.amount, made.beneficiary) == (5 * USD, bob.address)
    treasury = await verbs.positions(town.rpc, town.deployment, town.deployment.operator)
    assert treasury.usdc == 5 * USD


async def test_tokens_are_sent(town: Town) -> None:
    alice = await town.wallet("alice", hold=5 * ONE, usdc=USD)
    bob = await town.wallet("bob")
    await verbs.transfer(alice, town.deployment, "HOLD", 2 * ONE, bob.address)
    await verbs.transfer(alice, town.deployment, "USDC", USD, bob.address)
    has = await verbs.positions(town.rpc, town.deployment, bob.address)
    assert (has.hold, has.usdc) == (2 * ONE, USD)


async def test_what_the_verbs_do_is_what_the_reader_reads(town: Town, database: Database) -> None:
    alice = await town.holder("alice", ONE)
    await dev.fund(town.rpc, town.deployment, "alice", hold=0, usdc=USD)
    staked = await verbs.stake_diem(alice, town.deployment, ONE)
    deposited = await verbs.deposit(alice, town.deployment, USD)
    await town.anvil.mine(2)
    change, payment = (await LogReader(town.rpc, database, town.deployment).poll()).events
    assert isinstance(change, AllowanceChanged)
    assert isinstance(payment, Deposited)
    assert (change.place.tx_hash, change.today, change.onward) == (staked.tx_hash, staked.today, ONE)
    assert (payment.place.tx_hash, payment.amount, payment.payer) == (deposited.tx_hash, USD, alice.address)


async def test_too_little_is_told_with_what_is_there_and_how_to_get_more(town: Town) -> None:
    alice = await town.holder("alice", ONE)
    said = [
        await refused(verbs.stake_hold(alice, town.deployment, ONE)),
        await refused(verbs.stake_diem(alice, town.deployment, 2 * ONE)),
        await refused(verbs.deposit(alice, town.deployment, 3 * USD)),
        await refused(verbs.mint(alice, town.deployment, 100 * ONE)),
        await refused(verbs.unstake_hold(alice, town.deployment, 1_000 * ONE)),
        await refused(verbs.burn(alice, town.deployment, 2 * ONE)),
        await refused(verbs.transfer(alice, town.deployment, "USDC", 1, alice.address)),
    ]
    assert said[0] == "alice has 0 HOLD and needs 1 HOLD. Get some with `freehold dev fund alice`."
    assert said[1] == "alice has 1 DIEM and needs 2 DIEM. Mint more with `freehold mint AMOUNT --from alice`."
    assert said[2] == "alice has 0 USDC and needs 3 USDC. Get some with `freehold dev fund alice`."
    assert "sHOLD unlocked and needs 9000." in said[3]
    assert "for 100 DIEM. Stake more with `freehold stake hold AMOUNT --from alice`." in said[3]
    assert "sHOLD unlocked and needs 1000 sHOLD. Burning DIEM unlocks more" in said[4]
    assert said[5].startswith("alice has 1 DIEM and needs 2 DIEM.")
    assert said[6] == "alice has 0 USDC and needs 0.000001 USDC. Get some with `freehold dev fund alice`."
    with pytest.raises(NotEnough):
        await verbs.deposit(alice, town.deployment, 3 * USD)


async def test_what_the_contracts_refuse_is_told_in_words(town: Town) -> None:
    alice = await town.holder("alice", ONE)
    bob = await town.wallet("bob")
    await verbs.stake_diem(alice, town.deployment, ONE // 2)
    asked = await verbs.unstake_diem(alice, town.deployment, ONE // 4)
    assert await refused(verbs.redirect(alice, town.deployment, ONE, new_beneficiary=bob.address)) == (
        "Redirecting 1 DIEM was refused by the contract: the position is 0.25 DIEM, less than 1."
    )
    assert await refused(verbs.stake_diem(alice, town.deployment, 1, operator=bob.address)) == (
        f"Staking 0.000000000000000001 DIEM was refused by the contract: {bob.address} is not a registered operator."
    )
    assert await refused(verbs.mint(alice, town.deployment, 50_000 * ONE)) == (
        "Minting 50000 DIEM was refused by the contract: "
        "operators have committed 40000 USD a day in all, and there would be 50001 DIEM."
    )
    assert await refused(verbs.mint(alice, town.deployment, ONE, max_lock=ONE)) == (
        "Minting 1 DIEM was refused by the contract: it would lock 90.000011670335001435 sHOLD, more than 1."
    )
    assert await refused(verbs.stake_hold(alice, town.deployment, 0)) == (
        "Staking 0 HOLD was refused by the contract: the amount is zero."
    )
    assert await refused(verbs.withdraw(bob, town.deployment, "DIEM", asked.id)) == (
        f"Withdrawing request {asked.id} was refused by the contract: request {asked.id} belongs to {alice.address}."
    )
    with pytest.raises(Reverted) as raised:
        await verbs.unstake_diem(bob, town.deployment, ONE)
    assert raised.value.error == "BeyondPosition"


async def test_what_makes_no_sense_is_refused_before_the_chain_is_asked(town: Town) -> None:
    alice = await town.wallet("alice")
    for work in (
        verbs.transfer(alice, town.deployment, "sHOLD", 1, alice.address),
        verbs.withdraw(alice, town.deployment, "USDC", 1),
        verbs.transfer(alice, town.deployment, "HOLD", 1, "alice"),
    ):
        with pytest.raises(InvalidRequest):
            await work


# ---- the dev chain's time


async def test_advancing_a_day_goes_to_the_next_midnight_and_time_goes_on_from_there(town: Town) -> None:
    first = await dev.advance_day(town.rpc, confirmations=2)
    assert first.at_s == Day(first.day).start_s + 1
    assert first.day == Day.of(START_S).number + 1
    assert await town.anvil.head() == first.block_number + 2
    second = await dev.advance_day(town.rpc)
    assert second.day == first.day + 1
    await town.anvil.mine()
    newest = await town.rpc.call("eth_getBlockByNumber", "latest", False)
    assert second.at_s <= int(newest["timestamp"], 16) < second.at_s + 600


async def test_time_moves_only_on_a_dev_chain() -> None:
    other = Anvil("--chain-id", "31337")
    await other.start()
    with pytest.raises(WalletRefused):
        await dev.advance_day(other.rpc)
    await other.stop()
