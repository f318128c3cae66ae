"""The local facilitator: what of a payment is on the chain, and how it gets there.

The token's contract decides whether an authorization is good; this only tries it out first, so that a refusal costs no
gas and has words.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from freehold.chain.abi import Contract, Log, from_hex, read_log, template
from freehold.chain.contracts import why
from freehold.chain.model import Block, Deployment
from freehold.chain.problems import DeploymentBroken, RpcError
from freehold.chain.rpc import Rpc
from freehold.chain.wallet import read
from freehold.gateway.x402.model import Authorization, Terms, Unacceptable, signer, usdc


def _function(name: str, inputs: tuple[str, ...], output: str | None = None) -> Mapping[str, Any]:
    outputs = [{"name": "", "type": output}] if output else []
    return {
        "type": "function",
        "name": name,
        "inputs": [{"name": "", "type": kind} for kind in inputs],
        "outputs": outputs,
    }


def _event(name: str, *inputs: tuple[str, str, bool]) -> Mapping[str, Any]:
    return {
        "type": "event",
        "name": name,
        "inputs": [{"name": what, "type": kind, "indexed": indexed} for what, kind, indexed in inputs],
    }


TOKEN = [
    _function("name", (), "string"),
    _function("version", (), "string"),
    _function("DOMAIN_SEPARATOR", (), "bytes32"),
    _function("balanceOf", ("address",), "uint256"),
    _function("authorizationState", ("address", "bytes32"), "bool"),
    _function(
        "transferWithAuthorization",
        ("address", "address", "uint256", "uint256", "uint256", "bytes32", "bytes"),
    ),
    _event("AuthorizationUsed", ("authorizer", "address", True), ("nonce", "bytes32", True)),
    _event("Transfer", ("from", "address", True), ("to", "address", True), ("value", "uint256", False)),
]
"""The part of USDC (FiatTokenV2_2) that is used here; Circle's own ABI isn't shipped."""


class Sender(Protocol):
    """A wallet that pays the gas."""

    @property
    def address(self) -> str: ...

    async def transmit(self, to: str, data: str, *, gas: int) -> str:
        """Send a transaction, and don't wait for it; its hash."""
        ...

    async def replace(self, tx_hash: str, to: str, data: str) -> str | None:
        """Send this in place of a transaction that waits for too low a fee; None when that isn't so."""
        ...


@dataclass(frozen=True, slots=True)
class Landing:
    """Where an authorization's transfer stands on the chain."""

    tx_hash: str
    block_number: int
    block_hash: str


@dataclass(frozen=True, slots=True)
class Seen:
    """What the chain's newest block says of one payment."""

    head: Block
    used: bool
    """The nonce is used: by a transfer, maybe another than was shown here, or by a cancellation."""
    landing: Landing | None
    """The transfer to us that used it."""
    reverted: bool
    """The transaction that was sent last was mined and did nothing."""


class Facilitator:
    """Verifies and submits authorizations of one token, to one treasury."""

    def __init__(self, rpc: Rpc, deployment: Deployment, open_sender: Callable[[], Awaitable[Sender]]) -> None:
        """`open_sender` is asked once, at the first payment: the node may not be there at the start."""
        self._rpc = rpc
        self._deployment = deployment
        self._open_sender = open_sender
        self._sender: Sender | None = None
        self._token = Contract(TOKEN, address=deployment.contracts["usdc"], name="USDC")
        self._terms: Terms | None = None

    @property
    def confirmations(self) -> int:
        return self._deployment.confirmations

    async def terms(self) -> Terms:
        """What payments look like, as the contracts say. Raises DeploymentBroken, NodeUnavailable, RpcError."""
        if self._terms is None:
            prepaid = template("Prepaid").at(self._deployment.contracts["prepaid"])
            terms = Terms(
                chain_id=self._deployment.chain_id,
                token=self._token.address,
                pay_to=await read(self._rpc, prepaid, "TREASURY"),
                name=await read(self._rpc, self._token, "name"),
                version=await read(self._rpc, self._token, "version"),
            )
            if await read(self._rpc, self._token, "DOMAIN_SEPARATOR") != terms.domain_separator():
                raise DeploymentBroken(
                    reason=f"The token at {terms.token} signs by another EIP-712 domain than its name."
                )
            self._terms = terms
        return self._terms

    async def head(self) -> Block:
        return _block(await self._rpc.call("eth_getBlockByNumber", "latest", False))

    async def verify(self, signed: Authorization) -> None:
        """Raises Unacceptable for an authorization that the token wouldn't carry out now, in words."""
        terms = await self.terms()
        if signer(signed.digest(terms), signed.signature) != signed.payer:
            code = await self._rpc.call("eth_getCode", signed.payer, "latest")
            if code in ("0x", None):
                raise Unacceptable(f"its signature is not that of {signed.payer} for this authorization")
        balance, used = await self._rpc.batch(
            [self._asking("balanceOf", signed.payer), self._asking("authorizationState", signed.payer, signed.nonce)]
        )
        if self._token.result("authorizationState", used):
            raise Unacceptable("its nonce was used or cancelled on the chain before")
        found = self._token.result("balanceOf", balance)
        if found < signed.value:
            raise Unacceptable(f"{signed.payer} has {usdc(found)} USDC, and it is for {usdc(signed.value)}")
        await self._gas(signed)

    async def submit(self, signed: Authorization) -> str:
        """Send it to the chain; the transaction's hash. Raises Unacceptable, NodeUnavailable, RpcError."""
        gas = await self._gas(signed)
        return await (await self._from()).transmit(self._token.address, self._call(signed), gas=gas * 13 // 10)

    async def waits(self, tx_hash: str) -> bool:
        """Whether a transaction is known to the node, and in no block."""
        found = await self._rpc.call("eth_getTransactionByHash", tx_hash)
        return found is not None and found.get("blockNumber") is None

    async def offer_more(self, signed: Authorization, tx_hash: str) -> str | None:
        """Send it anew in place of `tx_hash`, if that offers the chain too little; its hash. Raises RpcError, WalletRefused.

        It isn't tried out again: a node that counts what waits would say that the nonce is used.
        """
        return await (await self._from()).replace(tx_hash, self._token.address, self._call(signed))

    async def withdraw(self, tx_hash: str) -> str | None:
        """Have nothing happen in place of `tx_hash`, if that offers the chain too little: what comes after it waits, too."""
        sender = await self._from()
        return await sender.replace(tx_hash, sender.address, "0x")

    async def look(self, signed: Authorization, *, from_block: int, tx_hash: str | None) -> Seen:
        """What has become of it. `from_block`: it was not used before; `tx_hash`: where it was sent last."""
        calls: list[tuple[str, list[Any]]] = [
            ("eth_getBlockByNumber", ["latest", False]),
            self._asking("authorizationState", signed.payer, signed.nonce),
        ]
        if tx_hash is not None:
            calls.append(("eth_getTransactionReceipt", [tx_hash]))
        block, state, *receipts = await self._rpc.batch(calls)
        used = bool(self._token.result("authorizationState", state))
        receipt = receipts[0] if receipts else None
        landing = None
        if used:
            landing = self._landing(signed, receipt) or await self._find(signed, from_block)
        reverted = not used and receipt is not None and int(receipt["status"], 16) != 1
        return Seen(_block(block), used, landing, reverted)

    async def used_before(self, signed: Authorization, block_number: int) -> bool:
        """Whether its nonce was used at the end of that block."""
        method, arguments = self._asking("authorizationState", signed.payer, signed.nonce)
        return bool(
            self._token.result("authorizationState", await self._rpc.call(method, arguments[0], hex(block_number)))
        )

    async def block(self, number: int) -> Block | None:
        """None when the chain doesn't reach that far."""
        found = await self._rpc.call("eth_getBlockByNumber", hex(number), False)
        return None if found is None else _block(found)

    async def _find(self, signed: Authorization, from_block: int) -> Landing | None:
        """The transaction that used the nonce, whoever sent it."""
        topics = [
            self._token.topic("AuthorizationUsed"),
            "0x" + from_hex(signed.payer).rjust(32, b"\0").hex(),
            "0x" + signed.nonce.hex(),
        ]
        logs = await self._rpc.call(
            "eth_getLogs", {"address": self._token.address, "topics": topics, "fromBlock": hex(max(0, from_block))}
        )
        if not logs:
            return None
        receipt = await self._rpc.call("eth_getTransactionReceipt", logs[-1]["transactionHash"])
        return self._landing(signed, receipt)

    def _landing(self, signed: Authorization, receipt: Mapping[str, Any] | None) -> Landing | None:
        """Where in a transaction the authorization paid us: the transfer stands right behind its own AuthorizationUsed.

        Not just anywhere in it: two authorizations in one transaction must not both count one transfer.
        """
        if receipt is None or int(receipt["status"], 16) != 1:
            return None
        logs = {log.log_index: log for log in map(read_log, receipt["logs"]) if log.address == self._token.address}
        for index, log in logs.items():
            if self._is(log, "AuthorizationUsed", authorizer=signed.payer, nonce=signed.nonce):
                following = logs.get(index + 1)
                paid = {"from": signed.payer, "to": signed.pay_to, "value": signed.value}
                if following is not None and self._is(following, "Transfer", **paid):
                    return Landing(receipt["transactionHash"], int(receipt["blockNumber"], 16), receipt["blockHash"])
        return None

    def _is(self, log: Log, event: str, **arguments: object) -> bool:
        return self._token.event(log) == (event, arguments)

    async def _gas(self, signed: Authorization) -> int:
        """Gas of submitting it. Raises Unacceptable when the token refuses."""
        call = {"from": (await self._from()).address, "to": self._token.address, "data": self._call(signed)}
        try:
            return int(await self._rpc.call("eth_estimateGas", call), 16)
        except RpcError as error:
            if error.data is None and "revert" not in error.reason.lower():
                raise
            said = why(error.data, error.reason)[1].rstrip(".")
            raise Unacceptable(f"USDC says: {said}") from None

    async def _from(self) -> Sender:
        if self._sender is None:
            self._sender = await self._open_sender()
        return self._sender

    def _call(self, signed: Authorization) -> str:
        return self._token.call(
            "transferWithAuthorization",
            *(signed.payer, signed.pay_to, signed.value, signed.valid_after, signed.valid_before),
            signed.nonce,
            signed.signature,
        )

    def _asking(self, function: str, *arguments: Any) -> tuple[str, list[Any]]:
        return "eth_call", [{"to": self._token.address, "data": self._token.call(function, *arguments)}, "latest"]


def _block(header: Mapping[str, Any]) -> Block:
    return Block(int(header["number"], 16), header["hash"], header["parentHash"], int(header["timestamp"], 16))
