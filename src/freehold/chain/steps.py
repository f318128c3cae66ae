"""Several transactions that belong together: tried one after the other before the first is sent, then sent in order."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from freehold.chain.abi import Contract, from_hex
from freehold.chain.problems import RpcError
from freehold.chain.wallet import Receipt, Wallet, reverted

_UNKNOWN_METHOD = -32601


@dataclass(frozen=True, slots=True)
class Step:
    """One transaction to be sent. `what` names it in a refusal: "Borrowing 5 USDC"."""

    contract: Contract
    function: str
    arguments: tuple[Any, ...]
    what: str


async def rehearse(wallet: Wallet, steps: Sequence[Step]) -> list[Any]:
    """What each would return if they were mined now, each after the ones before it. Nothing is sent.

    Raises Reverted in words for the first that would fail. A node that can't try several (`eth_simulateV1`) tries none
    here: each is then tried when its turn comes.
    """
    calls = [
        {
            "from": wallet.address,
            "to": step.contract.address,
            "data": step.contract.call(step.function, *step.arguments),
        }
        for step in steps
    ]
    try:
        blocks = await wallet.rpc.call("eth_simulateV1", {"blockStateCalls": [{"calls": calls}]}, "latest")
    except RpcError as error:
        if error.number == _UNKNOWN_METHOD:
            return []
        raise
    results = []
    for step, tried in zip(steps, blocks[0]["calls"], strict=True):
        if int(tried["status"], 16) != 1:
            raise reverted(step.what, _error(tried))
        results.append(step.contract.result(step.function, tried["returnData"]))
    return results


async def send_all(wallet: Wallet, steps: Sequence[Step]) -> list[Receipt]:
    """Send them in order, each tried once more and mined before the next. Raises Reverted, NotMined, NodeUnavailable."""
    return [
        await wallet.send(step.contract, step.function, *step.arguments, what=step.what)  # one after the other
        for step in steps
    ]


async def approval(wallet: Wallet, token: Contract, spender: Contract, amount: int, *, symbol: str) -> list[Step]:
    """The step that lets `spender` take exactly `amount`; none when it may take that much already."""
    if await wallet.read(token, "allowance", wallet.address, spender.address) >= amount:
        return []
    return [Step(token, "approve", (spender.address, amount), f"Letting {spender.name} take {symbol}")]


def _error(tried: dict[str, Any]) -> RpcError:
    """A failed call of a trial as the node's answer."""
    said = tried.get("error") or {}
    data = tried.get("returnData") or said.get("data") or "0x"
    return RpcError(
        method="eth_simulateV1",
        number=int(said.get("code", 3)),
        reason=str(said.get("message", "execution reverted")),
        data=from_hex(data) or None,
    )
