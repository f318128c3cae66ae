"""What must hold on a chain at every moment, read from the chain alone: no token made or lost, no promise without its DIEM.

Each law is that of docs/contracts: of DIEM and its strips, of the lock behind minted DIEM, of the allowances of a day, and of
what Morpho Blue and Uniswap v3 hold for others.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from eth_utils.address import to_checksum_address
from eth_utils.crypto import keccak

from freehold.chain.abi import Contract, from_hex, read_log
from freehold.chain.contracts import ERC20, Contracts
from freehold.chain.defi.lending import ABI as MORPHO
from freehold.chain.defi.model import Defi
from freehold.chain.model import Deployment
from freehold.chain.rpc import Rpc
from freehold.chain.series import month_of, number_of
from freehold.chain.verbs import reads
from freehold.clock import DAY_S, Month

_TRANSFER = "0x" + keccak(text="Transfer(address,address,uint256)").hex()
_SUPPLY = [{"type": "function", "name": "totalSupply", "inputs": [], "outputs": [{"name": "", "type": "uint256"}]}]
NOBODY = "0x" + "00" * 20


@dataclass(frozen=True)
class Books:
    """Who holds what of every token."""

    supply: Mapping[str, int]
    held: Mapping[str, Mapping[str, int]]
    """By token, then by address."""

    def of(self, token: str, holder: str) -> int:
        return self.held[token].get(holder, 0)


async def tokens(rpc: Rpc, deployment: Deployment) -> dict[str, str]:
    """Addresses by symbol: HOLD, sHOLD, DIEM, USDC, and both tokens of every series."""
    contracts, where = Contracts.of(deployment), deployment.contracts
    found = {"HOLD": where["hold"], "sHOLD": where["staking"], "DIEM": where["diem"], "USDC": where["usdc"]}
    months = sorted({event["month"] for event in await logged(rpc, contracts.strips, "SeriesCreated")})
    for month, pair in zip(
        months, await reads(rpc, "latest", [(contracts.strips, "seriesOf", (month,)) for month in months]), strict=True
    ):
        for symbol, address in zip((f"DIEM-{month_of(month)}", f"pDIEM-{month_of(month)}"), pair, strict=True):
            if await rpc.call("eth_getCode", address, "latest") not in ("0x", None):
                found[symbol] = address
    return found


async def books(rpc: Rpc, deployment: Deployment) -> Books:
    """Everybody's balance of every token, everybody being who ever got some. Each token's balances are its supply."""
    supply: dict[str, int] = {}
    held: dict[str, dict[str, int]] = {}
    for symbol, address in (await tokens(rpc, deployment)).items():
        token = Contract([*ERC20, *_SUPPLY], address=address, name=symbol)
        query = {"address": address, "topics": [_TRANSFER], "fromBlock": "0x0", "toBlock": "latest"}
        raw = await rpc.call("eth_getLogs", query)
        owners = {to_checksum_address("0x" + log["topics"][side][-40:]) for log in raw for side in (1, 2)} - {NOBODY}
        found = await reads(rpc, "latest", [(token, "balanceOf", (owner,)) for owner in sorted(owners)])
        (supply[symbol],) = await reads(rpc, "latest", [(token, "totalSupply", ())])
        held[symbol] = {owner: amount for owner, amount in zip(sorted(owners), found, strict=True) if amount}
    return Books(supply, held)


async def hold(rpc: Rpc, deployment: Deployment, defi: Defi) -> Books:
    """Asserts every law, and returns the balances."""
    found = await books(rpc, deployment)
    for symbol, supply in found.supply.items():
        assert sum(found.held[symbol].values()) == supply, f"holders of {symbol} have what there is of it"
    await _of_the_lock(rpc, deployment, found)
    await _of_strips(rpc, deployment, found)
    await _of_a_day(rpc, deployment, found)
    await _of_morpho(rpc, defi, found)
    return found


async def _of_the_lock(rpc: Rpc, deployment: Deployment, found: Books) -> None:
    staking = Contracts.of(deployment).staking
    locked, cost = await reads(
        rpc, "latest", [(staking, "totalLocked", ()), (staking, "costOf", (found.supply["DIEM"],))]
    )
    assert locked >= cost, "the lock behind DIEM is at least what the curve says"
    assert found.of("HOLD", staking.address) >= found.supply["sHOLD"], "every sHOLD has its HOLD"


async def _of_strips(rpc: Rpc, deployment: Deployment, found: Books) -> None:
    strips = Contracts.of(deployment).strips
    principals = {
        Month.parse(symbol.removeprefix("pDIEM-")): amount
        for symbol, amount in found.supply.items()
        if symbol.startswith("pDIEM-")
    }
    assert found.of("DIEM", strips.address) == sum(principals.values()), "each principal has its DIEM"
    activated: Counter[Month] = Counter()
    for event in await logged(rpc, strips, "Activated"):
        activated[month_of(event["month"])] += event["amount"]
    (first, _) = (await reads(rpc, "latest", [(strips, "months", ())]))[0]
    for symbol in found.supply:
        if symbol.startswith("DIEM-"):
            month = Month.parse(symbol.removeprefix("DIEM-"))
            if number_of(month) >= first:
                later = sum(amount for until, amount in principals.items() if until >= month)
                assert found.supply[symbol] + activated[month] == later, f"{symbol} and what was activated of it"


async def _of_a_day(rpc: Rpc, deployment: Deployment, found: Books) -> None:
    contracts = Contracts.of(deployment)
    block = await rpc.call("eth_getBlockByNumber", "latest", False)
    today = int(block["timestamp"], 16) // DAY_S
    operators = {event["operator"] for event in await logged(rpc, contracts.vault, "OperatorChanged")}
    for day in (today, today + 1):
        granted = await reads(
            rpc,
            "latest",
            [(each, "totalAllowance", (who, day)) for each in (contracts.vault, contracts.strips) for who in operators],
        )
        assert sum(granted) <= found.supply["DIEM"], "a day's allowances are at most the DIEM that there is"
    staked = await reads(rpc, "latest", [(contracts.vault, "stakedTo", (who,)) for who in operators])
    assert found.of("DIEM", contracts.vault.address) >= sum(staked), "what is staked is in the vault"


async def _of_morpho(rpc: Rpc, defi: Defi, found: Books) -> None:
    """It holds what is lent and not borrowed, to the unit, and each pledged token."""
    morpho = Contract(MORPHO, address=defi.morpho, name="Morpho Blue")
    totals = await reads(rpc, "latest", [(morpho, "market", (from_hex(each.id),)) for each in defi.markets.values()])
    assert found.of("USDC", defi.morpho) >= sum(supplied - borrowed for supplied, _, borrowed, *_ in totals)
    for symbol, market in defi.markets.items():
        owners = sorted(found.held[symbol] | found.held["USDC"])
        places = await reads(rpc, "latest", [(morpho, "position", (from_hex(market.id), owner)) for owner in owners])
        assert found.of(symbol, defi.morpho) == sum(place[2] for place in places), f"pledged {symbol} is there"
        assert totals[list(defi.markets).index(symbol)][3] == sum(place[1] for place in places), (
            "each debt has a debtor"
        )


async def logged(rpc: Rpc, contract: Contract, event: str) -> list[dict[str, Any]]:
    """What a contract has said of one kind since the beginning."""
    query = {"address": contract.address, "topics": [contract.topic(event)], "fromBlock": "0x0", "toBlock": "latest"}
    read = (contract.event(read_log(raw)) for raw in await rpc.call("eth_getLogs", query))
    return [told[1] for told in read if told is not None]
