"""The whole life of some DIEM, from the command line on one chain: bought, staked, split, sold, pooled, borrowed against,
liquidated, merged and redeemed. After each step every law holds, and in the end every balance adds up."""

import re
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pytest
from tests.chain.defi import laws

from freehold.chain.contracts import Contracts
from freehold.chain.rpc import Rpc
from freehold.chain.wallet import addresses
from freehold.clock import DAY_S, Month

from .stand import Stand, stand

ONE, USD = 10**18, 10**6
START_S = 1_800_000_000
"""2027-01-15T08:00:00Z."""
JANUARY, FEBRUARY, MARCH = "2027-01", "2027-02", "2027-03"

pytestmark = pytest.mark.timeout(1_200)  # the first test of all fetches and compiles


class Tale:
    """A stand on which each command is followed by the laws."""

    def __init__(self, made: Stand) -> None:
        self.stand = made
        self.books: laws.Books
        self.look()

    def look(self) -> None:
        self.books = self.stand.look(lambda rpc: laws.hold(rpc, self.stand.deployment, self.stand.defi))

    def does(self, *words: str) -> Any:
        """A command's document, with --json; it is asked nothing."""
        found = self.stand.server.json(*words)
        self.look()
        return found

    def refused(self, *words: str) -> str:
        before = self.books
        sentence = self.stand.server.refused(*words)
        self.look()
        assert self.books == before, "what is refused changes nothing"
        return sentence

    def passes(self, seconds: int) -> None:
        self.stand.wait(seconds)
        self.look()

    def has(self, who: str, token: str) -> Decimal:
        (part,) = [
            each for each in self.position(who)["parts"] if (each["kind"], each["token"]) == ("wallet", token)
        ] or [{"amount": "0"}]
        return Decimal(part["amount"])

    def position(self, who: str) -> Any:
        return self.stand.server.json("position", "--from", who)


@pytest.fixture(scope="module")
def tale() -> Iterator[Tale]:
    with stand(START_S) as made:
        yield Tale(made)


def of(position: Any, kind: str, token: str | None = None) -> Decimal:
    """The sum of a kind's amounts."""
    rows = [each for each in position["parts"] if each["kind"] == kind and token in (None, each["token"])]
    return sum((Decimal(each["amount"]) for each in rows), Decimal(0))


def test_a_diem_is_bought_used_lent_against_lost_and_redeemed(tale: Tale) -> None:
    usdc = tale.has("alice", "USDC")
    for _ in range(2):
        tale.does("dev", "fund", "alice")
        usdc += 1_000

    # buy 8, stake half of it, split a quarter over three months
    bought = tale.does("trade", "buy", "8", "--from", "alice", "--yes")
    usdc -= Decimal(bought["paid"])
    assert (bought["received"], tale.has("alice", "USDC"), tale.has("alice", "DIEM")) == ("8", usdc, 8)
    staked = tale.does("stake", "diem", "4", "--from", "alice")
    assert staked["onward"] == "4"
    split = tale.does("strips", "split", "2", "--to", MARCH, "--from", "alice")
    assert (split["first"], split["last"]) == (JANUARY, MARCH)
    assert of(tale.position("alice"), "strips") == 6 and of(tale.position("alice"), "principal") == 2

    # lease a month to the market, use a month oneself
    sold = tale.does("trade", "sell", "1", f"DIEM-{FEBRUARY}", "--from", "alice", "--yes")
    usdc += Decimal(sold["received"])
    assert 20 < Decimal(sold["received"]) < 28
    tale.does("strips", "activate", "1", "--of", JANUARY, "--from", "alice")
    assert Decimal(tale.position("alice")["totals"]["daily_usd"]) == 5

    # be a pool's counterparty
    pooled = tale.does("pool", "add", "0.5", "--from", "alice", "--yes")
    assert of(tale.position("alice"), "pooled", "DIEM") == pytest.approx(Decimal("0.5"), abs=Decimal("1e-9"))
    usdc -= Decimal(pooled["usdc"])

    # borrow, be refused over the limit with the number that would do, borrow that
    said = tale.refused("borrow", "300", "--collateral", "1", "--from", "alice", "--yes")
    allowed = re.search(r"may borrow ([0-9.]+) USDC more", said)
    assert allowed is not None, said
    owed = Decimal(allowed.group(1)).quantize(Decimal("0.01")) - Decimal("0.02")
    made = tale.does("borrow", str(owed), "--collateral", "1", "--from", "alice", "--yes")
    assert (made["pledged"], made["account"]["healthy"]) == ("1", True)
    usdc += owed
    assert tale.has("alice", "USDC") == usdc
    (health,) = tale.does("health", "--from", "alice")["markets"]
    assert 0.7 < health["ltv"] < health["lltv"] == 0.77
    everybody_adds_up(tale)
    assert "it can be liquidated when DIEM is below" in tale.refused("liquidate", "alice", "--from", "bob", "--yes")

    # the price falls, and after the half hour that the oracle looks back over, anybody may liquidate
    for _ in range(3):
        tale.does("dev", "fund", "carol")
    tale.does("stake", "hold", "30000", "--from", "carol")
    tale.does("mint", "60", "--from", "carol")
    fallen = tale.does("trade", "sell", "40", "--slippage", "5%", "--from", "carol", "--yes")
    assert Decimal(fallen["quote"]["price_impact"]) > Decimal("0.05")
    tale.passes(1_801)
    (listed,) = tale.does("health", "--everybody", "--from", "bob")["borrowers"]
    assert (listed["healthy"], listed["collateral"]) == (False, "1")
    tale.does("dev", "fund", "bob")
    before = tale.has("bob", "USDC")
    gone = tale.does("liquidate", "alice", "--from", "bob", "--yes")
    seized = Decimal(gone["seized"])
    assert (tale.has("bob", "DIEM"), tale.has("bob", "USDC")) == (seized, before - Decimal(gone["repaid"]))
    assert seized * Decimal(gone["account"]["price"]) > Decimal(gone["repaid"])  # it pays
    assert gone["account"]["debt"] == "0"
    kept = 1 - seized
    assert 0 < kept < 1
    assert Decimal(tale.does("repay", "--collateral", "all", "--from", "alice", "--yes")["released"]) == kept

    # merge what is still whole; the other principal waits for its month's end
    tale.does("strips", "merge", "1", "--to", MARCH, "--from", "alice")
    assert "can be redeemed from 2027-04-01" in tale.refused("strips", "redeem", "1", "--of", MARCH, "--from", "alice")
    tale.does("unstake", "diem", "4", "--from", "alice")
    tale.passes(DAY_S)
    tale.does("withdraw", "diem", "1", "--from", "alice")
    out = tale.does("pool", "remove", str(pooled["position"]), "--from", "alice", "--yes")
    tale.stand.until(Month.parse(MARCH).end_s)
    tale.look()
    tale.does("strips", "redeem", "1", "--of", MARCH, "--from", "alice")

    # all of it is back but for what was seized, and what the pool changed into USDC
    diem = Decimal(8) - Decimal(pooled["amount"]) + Decimal(out["amount"]) - seized
    assert tale.has("alice", "DIEM") == diem
    assert tale.has("alice", "USDC") == usdc + Decimal(out["usdc"])
    left = tale.position("alice")
    assert {(part["kind"], part["token"]) for part in left["parts"]} == {
        ("wallet", "HOLD"),
        ("wallet", "DIEM"),
        ("wallet", "USDC"),
        ("strips", f"DIEM-{MARCH}"),
    }  # a strip of a month that is over is worth nothing
    assert Decimal(left["totals"]["face"]["DIEM"]) == diem
    everybody_adds_up(tale)


def everybody_adds_up(tale: Tale) -> None:
    """What the wallets' positions say, together with the pools' dust, is all that there is of DIEM, HOLD and each series."""
    names = tale.stand.look(addresses)
    positions = {name: tale.position(name) for name in names}
    faces = {
        unit: sum((Decimal(found["totals"]["face"].get(unit, "0")) for found in positions.values()), Decimal(0))
        for unit in ("DIEM", "HOLD")
    }
    dust = Decimal("1e-9")
    assert faces["DIEM"] == pytest.approx(Decimal(tale.books.supply["DIEM"]) / ONE, abs=dust)
    contracts = Contracts.of(tale.stand.deployment)
    rewards = tale.books.of("HOLD", contracts.staking.address) - tale.books.supply["sHOLD"]
    claimable = sum((of(found, "earned") for found in positions.values()), Decimal(0))
    hold = Decimal(tale.books.supply["HOLD"] - rewards) / ONE
    assert faces["HOLD"] - claimable == pytest.approx(hold, abs=dust)
    for found in positions.values():
        cents = [Decimal(part["market_usd"]) for part in found["parts"] if part["market_usd"] is not None]
        assert Decimal(found["totals"]["market_usd"]) == sum(cents, Decimal(0))


def test_the_laws_notice_a_diem_that_is_gone(tale: Tale) -> None:
    """One base unit, moved out of the strips' contract by force."""
    contracts = Contracts.of(tale.stand.deployment)
    strips, diem = contracts.strips.address, contracts.diem
    bob = tale.stand.look(addresses)["bob"]

    async def taken(rpc: Rpc) -> Any:
        kept = await rpc.call("evm_snapshot")
        await rpc.call("anvil_impersonateAccount", strips)
        await rpc.call("anvil_setBalance", strips, hex(ONE))
        call = {"from": strips, "to": diem.address, "data": diem.call("transfer", bob, 1), "gas": hex(200_000)}
        await rpc.call("eth_sendTransaction", call)
        return kept

    before = tale.stand.look(taken)
    with pytest.raises(AssertionError, match="each principal has its DIEM"):
        tale.look()
    tale.stand.look(lambda rpc: rpc.call("evm_revert", before))
    tale.look()
