"""The deployed contracts as codecs, and their refusals in words."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from freehold.chain.abi import Abi, Contract, Failure, decode_failure, template
from freehold.chain.model import Deployment
from freehold.clock import rfc3339
from freehold.money import format_units

ERC20: Abi = [
    {
        "type": "function",
        "name": name,
        "inputs": [{"name": "", "type": kind} for kind in inputs],
        "outputs": [{"name": "", "type": output}],
    }
    for name, inputs, output in (
        ("balanceOf", ("address",), "uint256"),
        ("allowance", ("address", "address"), "uint256"),
        ("approve", ("address", "uint256"), "bool"),
        ("transfer", ("address", "uint256"), "bool"),
        ("mint", ("address", "uint256"), "bool"),
    )
]
"""What is used of USDC, whose own ABI isn't shipped."""

SENTENCES: Mapping[str, tuple[str, ...]] = {
    "BeyondCommitted": (
        "operator {operator} has committed {committed:18} USD a day, and {staked:18} DIEM would be staked to it",
        "operators have committed {committed:18} USD a day in all, and there would be {supply:18} DIEM",
    ),
    "BeyondPosition": ("the position is {position:18} DIEM, less than {amount:18}",),
    "BurnBeyondPosition": ("the wallet has {outstanding:18} DIEM outstanding, less than {amount:18}",),
    "BeyondCurve": ("the mint curve ends at {last:18} DIEM, and {supply:18} were asked for",),
    "LockBeyondCurve": ("the mint curve ends at {last:18} HOLD locked, and {cost:18} would be",),
    "StillCooling": ("request {id} can be withdrawn at {readyAt:time}, and the chain's time is {timestamp:time}",),
    "UnknownRequest": ("there is no open request {id}: it was withdrawn or cancelled, or never made",),
    "NotOwnRequest": ("request {id} belongs to {owner}",),
    "NotUnlocked": ("{needed:18} sHOLD are needed, and {unlocked:18} are unlocked",),
    "TooLittleDiem": ("it would mint {diemOut:18} DIEM, less than {least:18}",),
    "TooMuchLocked": ("it would lock {cost:18} sHOLD, more than {most:18}",),
    "TooLittleUnlocked": ("it would unlock {unlocked:18} sHOLD, less than {least:18}",),
    "BeyondActivated": ("{position:18} strips are activated there, less than {amount:18}",),
    "MonthOutOfRange": ("{month:month} has no series: they run from {first:month} to {last:month}",),
    "UnknownSeries": ("nothing was ever split to {month:month}",),
    "NotMatured": ("the principal of {month:month} can be redeemed from {maturesAt:time} on",),
    "MonthOver": ("no whole day of {month:month} is left to redirect: it ends at {endsAt:time}",),
    "NotPublisher": ("{caller} may not publish: {publisher} does",),
    "NotNextDay": ("day {day} is not the next one to publish: {nextDay} is",),
    "DayNotOver": ("day {day} ends at {endsAt:time}, and the chain's time is {timestamp:time}",),
    "PurseUneven": ("the day's {purse} doesn't add up: {came:9} USD came and {went:9} USD went",),
    "PurseCarried": (
        "the day's {purse} can't be carried over: it opens with {opening:9} and closes with {closing:9} USD",
    ),
    "PurseBroken": ("the day's {purse} opens with {opening:9} USD, and the day before closed with {closedWith:9}",),
    "UsedWithoutReceipts": ("the day has no receipts, and {used:9} USD were used",),
    "HistoryTooShort": ("the pool has no half hour of history yet that its price could be the mean of",),
    "NotStrips": ("only the strips contract may do that",),
    "NothingToClaim": ("{owner} has earned nothing that isn't claimed",),
    "AboveCeiling": ("{perSecond:18} HOLD a second is above the ceiling of {ceiling:18}",),
    "NotStaking": ("only the staking contract may do that",),
    "FromTreasury": ("{payer} is the operator's own treasury, which can't pay itself",),
    "UnknownOperator": ("{operator} is not a registered operator",),
    "NotTransferable": ("sHOLD can't be transferred",),
    "NotTimelock": ("only the timelock may do that",),
    "AccessControlUnauthorizedAccount": ("{account} has no such right at the timelock",),
    "TimelockInsufficientDelay": ("a delay of {delay} s is shorter than the timelock's {minDelay} s",),
    "ZeroAmount": ("the amount is zero",),
    "ZeroAddress": ("an address is zero",),
    "ERC20InsufficientBalance": ("{sender} has less than is needed ({balance} of {needed} base units)",),
    "ERC20InsufficientAllowance": ("{spender} may take {allowance} of the {needed} base units needed",),
    "ERC20InvalidReceiver": ("nothing can be sent to {receiver}",),
}

SAID: Mapping[str, str] = {
    "Too little received": "the price has moved, and it would give less than the least that was asked for",
    "Too much requested": "the price has moved, and it would cost more than the most that was allowed",
    "Price slippage check": "the price has moved further than was allowed",
    "STF": "it would take more of the wallet's tokens than was allowed, for the price may have moved",
    "Transaction too old": "it waited too long; ask for a new quote",
    "Not approved": "the position belongs to another wallet",
    "Invalid token ID": "there is no such position",
    "ERC721: operator query for nonexistent token": "there is no such position",
    "ERC721: owner query for nonexistent token": "there is no such position",
    "insufficient collateral": "insufficient collateral: the debt would be above the part of its value that may be owed",
    "insufficient liquidity": "insufficient liquidity: the market hasn't that much left that isn't lent out",
    "position is healthy": "the position is healthy: its debt is within the limit",
    "transferFrom reverted": "the wallet has too little of the token, or didn't let it be taken",
}
"""What other people's contracts say on a revert, in words."""


@dataclass(frozen=True, slots=True)
class Contracts:
    """One deployment's contracts."""

    hold: Contract
    staking: Contract
    diem: Contract
    vault: Contract
    prepaid: Contract
    usdc: Contract
    strips: Contract
    book: Contract

    @classmethod
    def of(cls, deployment: Deployment) -> "Contracts":
        where = deployment.contracts
        return cls(
            hold=template("Hold").at(where["hold"]),
            staking=template("Staking").at(where["staking"]),
            diem=template("Diem").at(where["diem"]),
            vault=template("CapacityVault").at(where["vault"]),
            prepaid=template("Prepaid").at(where["prepaid"]),
            usdc=Contract(ERC20, address=where["usdc"], name="USDC"),
            strips=template("Strips").at(where["strips"]),
            book=template("EpochBook").at(where["book"]),
        )


def why(data: bytes | None, said: str) -> tuple[str | None, str]:
    """A revert's error name and its sentence; `said` is what the node said, for a revert that explains nothing."""
    names = (
        "CapacityVault",
        "Staking",
        "Diem",
        "Hold",
        "Prepaid",
        "Strips",
        "Strip",
        "EpochBook",
        "FreeholdTimelock",
        "TwapOracle",
    )
    failure = decode_failure(data, (template(name) for name in names))
    return (failure.name, explain(failure)) if failure else (None, said)


def explain(failure: Failure) -> str:
    """A decoded error in words, with amounts in whole tokens and times and months in UTC where its meaning is known."""
    facts = {name: _Fact(value) for name, value in failure.arguments.items()}
    if failure.name == "Error" and failure.arguments["message"] in SAID:
        return SAID[failure.arguments["message"]]
    for sentence in SENTENCES.get(failure.name, ()):
        try:
            return sentence.format(**facts)
        except KeyError:
            continue
    return failure.sentence()


class _Fact:
    """An argument that formats itself: `{x}` plainly, `{x:18}` with so many decimals, `{x:time}` as UTC, `{x:month}` as 2026-12."""

    def __init__(self, value: Any) -> None:
        self._value = value

    def __format__(self, how: str) -> str:
        if how == "time":
            return rfc3339(self._value)
        if how == "month":
            return f"{1970 + self._value // 12}-{self._value % 12 + 1:02}"
        return format_units(self._value, decimals=int(how)) if how else str(self._value)
