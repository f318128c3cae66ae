"""Wallets, by name on the development chain or from a keystore on any, and their verbs, one transaction after the other.

The chain's own modules are loaded at the first use, because they take a while.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, TypeVar

from freehold.cli.refusal import Refusal
from freehold.cli.session import Session

if TYPE_CHECKING:
    from freehold.chain.model import Deployment
    from freehold.chain.rpc import Rpc
    from freehold.chain.verbs import Done as Mined
    from freehold.chain.wallet import Wallet

T = TypeVar("T")

DECIMALS = {"HOLD": 18, "sHOLD": 18, "DIEM": 18, "USDC": 6, "USD": 18}
_TOKENS = {
    "HoldStaked": {"amount": "HOLD", "staked": "sHOLD"},
    "Minted": {"diem_out": "DIEM", "cost": "sHOLD", "locked": "sHOLD", "outstanding": "DIEM"},
    "Burned": {"diem_in": "DIEM", "unlocked": "sHOLD", "locked": "sHOLD", "outstanding": "DIEM"},
    "DiemStaked": {"amount": "DIEM", "today": "DIEM", "onward": "DIEM"},
    "Redirected": {"amount": "DIEM"},
    "DepositMade": {"amount": "USDC"},
    "Funded": {"hold": "HOLD", "usdc": "USDC"},
    "Split": {"amount": "DIEM"},
    "Merged": {"amount": "DIEM"},
    "Redeemed": {"amount": "DIEM"},
    "Activated": {"amount": "DIEM", "today": "DIEM", "onward": "DIEM"},
    "StripsRedirected": {"amount": "DIEM"},
    "SeriesSent": {"amount": "DIEM"},
    "Claimed": {"amount": "HOLD", "staked": "sHOLD"},
}
"""Whose decimals a field has; the others name their token themselves."""


def amount_of(text: str, token: str) -> int:
    """A decimal amount as base units. Raises AmountError, also for nothing."""
    from freehold.money import AmountError, parse_units

    units = parse_units(text, decimals=DECIMALS[token], what=f"{token} amount")
    if units == 0:
        raise AmountError(f"{token} amount {text!r} is nothing.")
    return units


def shown(units: int, token: str, *, unit: bool = True) -> str:
    """Base units as a decimal, with the token's name."""
    from freehold.money import format_units

    text = format_units(units, decimals=DECIMALS[token])
    return f"{text} {token}" if unit else text


def about(units: int, token: str) -> str:
    """For people: an amount that nobody typed, with at most six places."""
    decimals = DECIMALS[token]
    step = 10 ** max(0, decimals - 6)
    if units % step == 0:
        return shown(units, token)
    return f"about {shown((units + step // 2) // step * step, token)}"


@dataclass(frozen=True, slots=True)
class Done:
    """What a verb came to: its result, and who did it."""

    who: str
    result: Any
    said: str = ""
    """The sentence, where the verb's own command makes it."""

    def document(self) -> dict[str, Any]:
        """For --json: amounts as decimals, times as RFC 3339."""
        from freehold.clock import Month, rfc3339

        kind = type(self.result).__name__
        tokens = dict(_TOKENS.get(kind, {}))
        if "amount" not in tokens and hasattr(self.result, "token"):
            tokens["amount"] = self.result.token
        found: dict[str, Any] = {"from": self.who}
        for field in fields(self.result):
            value = getattr(self.result, field.name)
            if field.name in tokens:
                found[field.name] = shown(value, tokens[field.name], unit=False)
            elif field.name.endswith("at_s"):
                found[field.name.removesuffix("_s")] = rfc3339(value)
            elif isinstance(value, Month):
                found[field.name] = str(value)
            else:
                found[field.name] = list(value) if isinstance(value, tuple) else value
        return found

    def sentence(self) -> str:
        """For people."""
        return self.said or _sentence(self.who, self.result)

    def where(self) -> str:
        """The transaction, and the block that it was mined in."""
        return f"transaction {self.result.tx_hash}, block {self.result.block_number}"


class Wallets:
    """Wallets by name, on the development chain; and the session's keystore, on any."""

    def __init__(self, session: Session, *, only_looks: bool = False) -> None:
        """`only_looks`: nothing is to be signed, so any chain will do without a keystore. Raises Refusal."""
        from freehold.chain.model import DEV_CHAIN_ID, Deployment

        chain = session.client.get("/v1/chain")
        chain_id = int(chain["chain_id"])
        self._keystore = session.keystore
        self._dev = chain_id == DEV_CHAIN_ID
        if not self._dev and self._keystore is None and not only_looks:
            raise Refusal(
                f"Wallets by name exist on the development chain ({DEV_CHAIN_ID}) only, and this server is on chain {chain_id}; "
                "use your own wallet with the contracts that `freehold status` lists, or a keystore with --wallet."
            )
        self.chain_id = chain_id
        self.operator = str(chain["operator"])
        self.confirmations = int(chain["confirmations"])
        self._rpc_url = str(session.rpc_url or chain.get("rpc_url") or "")
        self._deployment = Deployment(
            chain_id=chain_id,
            contracts=dict(chain["contracts"]),
            operator=self.operator,
            from_block=int(chain.get("from_block") or 0),
            confirmations=self.confirmations,
        )
        self._addresses: dict[str, str] | None = None

    # who

    def has(self, name: str) -> bool:
        """Whether a wallet is called that."""
        return (self._keystore is not None and name == self._keystore.name) or name in self.names()

    def names(self) -> list[str]:
        return list(self._known()) if self._dev else []

    def address(self, name: str) -> str:
        """The wallet's address. Raises Refusal for a name that no wallet has."""
        if self._keystore is not None and name == self._keystore.name:
            return self._keystore.address()
        known = self._known()
        if name not in known:
            raise Refusal(
                f"The development chain has no wallet {name!r}; it has {', '.join(known)}. "
                "A wallet in a file is named with --wallet."
            )
        return known[name]

    def name_of(self, address: str) -> str:
        """A wallet's name, or the ends of an address that has none here."""
        known = self._known() if self._dev else {}
        names = [name for name, each in known.items() if each.lower() == address.lower()]
        return names[0] if names else f"{address[:6]}…{address[-4:]}"

    def checked(self, address: str) -> str:
        """The address in checksum form. Raises Refusal when it is none, or its checksum is wrong."""
        from eth_utils.address import is_address, to_checksum_address

        if not is_address(address):
            raise Refusal(f"{address!r} is not an address: 0x and 40 hexadecimal digits, their checksum right.")
        return str(to_checksum_address(address))

    def sign(self, name: str, text: str) -> str:
        """EIP-191 signature of a text."""
        return self._signed(name, lambda wallet: wallet.sign(text))

    def sign_typed(self, name: str, data: Mapping[str, Any]) -> str:
        """EIP-712 signature of typed data."""
        return self._signed(name, lambda wallet: wallet.sign_typed(data))

    def _known(self) -> dict[str, str]:
        from freehold.chain.wallet import addresses

        if self._addresses is None:
            self._addresses = self._run(addresses)
        return self._addresses

    # what there is

    @property
    def usdc(self) -> str:
        """Address of the chain's USDC."""
        return str(self._deployment.contracts["usdc"])

    def time(self) -> int:
        """The newest block's time, unix seconds."""

        async def newest(rpc: "Rpc") -> int:
            block = await rpc.call("eth_getBlockByNumber", "latest", False)
            return int(block["timestamp"], 16)

        return self._run(newest)

    def holdings(self, name: str) -> dict[str, Any]:
        """Everything a wallet has: amounts as decimals, times as RFC 3339."""
        from freehold.chain.verbs import positions
        from freehold.clock import rfc3339

        address = self.address(name)
        found = self._run(lambda rpc: positions(rpc, self._deployment, address))
        return {
            "name": name,
            "address": found.address,
            "chain_time": rfc3339(found.chain_time_s),
            "hold": shown(found.hold, "HOLD", unit=False),
            "staked_hold": shown(found.staked_hold, "HOLD", unit=False),
            "locked_hold": shown(found.locked_hold, "HOLD", unit=False),
            "diem": shown(found.diem, "DIEM", unit=False),
            "outstanding_diem": shown(found.outstanding_diem, "DIEM", unit=False),
            "usdc": shown(found.usdc, "USDC", unit=False),
            "stakes": [
                {
                    "amount": shown(stake.amount, "DIEM", unit=False),
                    "beneficiary": stake.beneficiary,
                    "operator": stake.operator,
                }
                for stake in found.stakes
            ],
            "requests": [
                {
                    "token": request.token,
                    "id": request.id,
                    "amount": shown(request.amount, request.token, unit=False),
                    "ready_at": rfc3339(request.ready_at_s),
                }
                for request in found.requests
            ],
        }

    def staked(self, name: str, beneficiary: str) -> int:
        """DIEM that a wallet has staked for a beneficiary with this server's operator, base units."""
        from freehold.chain.verbs import positions

        found = self._run(lambda rpc: positions(rpc, self._deployment, self.address(name)))
        mine = (stake for stake in found.stakes if stake.operator == self.operator)
        return sum(stake.amount for stake in mine if stake.beneficiary == beneficiary)

    # verbs

    def fund(self, name: str) -> Done:
        from freehold.chain.dev import fund

        if not name.startswith("0x"):
            self.address(name)
        return Done(name, self._run(lambda rpc: fund(rpc, self._deployment, name)))

    def advance_day(self) -> int:
        """Move the chain to the next 00:00 UTC with enough blocks for the ledger to open it; the day's number."""
        from freehold.chain.dev import advance_day

        return self._run(lambda rpc: advance_day(rpc, confirmations=self.confirmations)).day

    def stake_hold(self, name: str, amount: int) -> Done:
        from freehold.chain.verbs import stake_hold

        return self._do(name, lambda wallet: stake_hold(wallet, self._deployment, amount))

    def unstake_hold(self, name: str, amount: int) -> Done:
        from freehold.chain.verbs import unstake_hold

        return self._do(name, lambda wallet: unstake_hold(wallet, self._deployment, amount))

    def mint(self, name: str, diem: int, max_lock: int | None) -> Done:
        from freehold.chain.verbs import mint

        return self._do(name, lambda wallet: mint(wallet, self._deployment, diem, max_lock=max_lock))

    def burn(self, name: str, diem: int, min_unlock: int | None) -> Done:
        from freehold.chain.verbs import burn

        return self._do(name, lambda wallet: burn(wallet, self._deployment, diem, least_unlocked=min_unlock or 0))

    def stake_diem(self, name: str, amount: int, beneficiary: str) -> Done:
        from freehold.chain.verbs import stake_diem

        return self._do(name, lambda wallet: stake_diem(wallet, self._deployment, amount, beneficiary=beneficiary))

    def unstake_diem(self, name: str, amount: int, beneficiary: str) -> Done:
        from freehold.chain.verbs import unstake_diem

        return self._do(name, lambda wallet: unstake_diem(wallet, self._deployment, amount, beneficiary=beneficiary))

    def cancel(self, name: str, token: str, request_id: int) -> Done:
        from freehold.chain.verbs import cancel

        return self._do(name, lambda wallet: cancel(wallet, self._deployment, token, request_id))

    def withdraw(self, name: str, token: str, request_id: int) -> Done:
        from freehold.chain.verbs import withdraw

        return self._do(name, lambda wallet: withdraw(wallet, self._deployment, token, request_id))

    def redirect(
        self,
        name: str,
        amount: int,
        *,
        beneficiary: str,
        new_beneficiary: str,
        operator: str | None,
        new_operator: str | None,
    ) -> Done:
        from freehold.chain.verbs import redirect

        return self._do(
            name,
            lambda wallet: redirect(
                wallet,
                self._deployment,
                amount,
                beneficiary=beneficiary,
                operator=operator,
                new_beneficiary=new_beneficiary,
                new_operator=new_operator,
            ),
        )

    def deposit(self, name: str, amount: int, beneficiary: str) -> Done:
        from freehold.chain.verbs import deposit

        return self._do(name, lambda wallet: deposit(wallet, self._deployment, amount, beneficiary=beneficiary))

    def transfer(self, name: str, token: str, amount: int, to: str) -> Done:
        from freehold.chain.verbs import transfer

        return self._do(name, lambda wallet: transfer(wallet, self._deployment, token, amount, to))

    @property
    def deployment(self) -> "Deployment":
        return self._deployment

    def look(self, work: "Callable[[Rpc], Awaitable[T]]") -> T:
        """What a reading of the chain comes to."""
        return self._run(work)

    def do(self, name: str, verb: "Callable[[Wallet], Awaitable[Mined]]", said: "Callable[[Any], str]") -> Done:
        """A verb of the wallet called `name`; `said` makes the sentence of its result."""
        result = self._as(name, verb)
        return Done(name, result, said(result))

    def acting(self, name: str, work: "Callable[[Wallet], Awaitable[T]]") -> T:
        """What `work` comes to with the wallet called `name`: an order that was tried, say, and not sent yet."""
        return self._as(name, work)

    # how

    def _do(self, name: str, verb: "Callable[[Wallet], Awaitable[Mined]]") -> Done:
        return Done(name, self._as(name, verb))

    def _as(self, name: str, work: "Callable[[Wallet], Awaitable[T]]") -> T:
        from freehold.chain.keywallet import KeyWallet
        from freehold.chain.wallet import DevWallet

        keystore = self._keystore
        secret = keystore.secret() if keystore is not None and name == keystore.name else None

        async def signed(rpc: "Rpc") -> T:
            if secret is None:
                return await work(await DevWallet.open(rpc, name))
            await self._check_chain(rpc)
            return await work(KeyWallet(rpc, secret, name=name))

        return self._run(signed)

    def _signed(self, name: str, work: "Callable[[Wallet], Awaitable[T]]") -> T:
        """As `_as`, but a keystore signs without asking any node."""
        from freehold.chain.keywallet import KeyWallet
        from freehold.chain.rpc import Rpc

        if self._keystore is None or name != self._keystore.name:
            return self._as(name, work)
        secret = self._keystore.secret()

        async def signed() -> T:
            async with Rpc(self._rpc_url) as rpc:
                return await work(KeyWallet(rpc, secret, name=name))

        return asyncio.run(signed())

    async def _check_chain(self, rpc: "Rpc") -> None:
        """A transaction for one chain must not be signed for another."""
        found = int(await rpc.call("eth_chainId"), 16)
        if found != self._deployment.chain_id:
            raise Refusal(
                f"The node at {rpc.node} is on chain {found}, and this server is on chain {self._deployment.chain_id}; "
                "name another with --rpc-url."
            )

    def _run(self, work: "Callable[[Rpc], Awaitable[T]]") -> T:
        from freehold.chain.rpc import Rpc

        if not self._rpc_url:
            raise Refusal(f"Say which node of chain {self._deployment.chain_id} to use: --rpc-url URL.")

        async def connected() -> T:
            async with Rpc(self._rpc_url) as rpc:
                return await work(rpc)

        return asyncio.run(connected())


def _sentence(who: str, result: Any) -> str:
    from freehold.chain import dev, verbs
    from freehold.cli.output import when

    match result:
        case verbs.HoldStaked():
            return f"{who} has staked {shown(result.amount, 'HOLD')}, {about(result.staked, 'sHOLD')} in all."
        case verbs.Minted():
            return (
                f"{who} has minted {shown(result.diem_out, 'DIEM')} by locking {about(result.cost, 'sHOLD')}, "
                f"and has {about(result.locked, 'sHOLD')} locked in all."
            )
        case verbs.Burned():
            return (
                f"{who} has burned {shown(result.diem_in, 'DIEM')}, which unlocks {about(result.unlocked, 'sHOLD')}; "
                f"{about(result.locked, 'sHOLD')} stay locked."
            )
        case verbs.DiemStaked():
            return (
                f"{who} has staked {shown(result.amount, 'DIEM')}. The beneficiary's allowance is now "
                f"{shown(result.today // 10**9 * 10**9, 'USD')} for this day and {shown(result.onward, 'USD')} for each later one."
            )
        case verbs.UnstakeRequested():
            ready = when(result.ready_at_s, now_s=result.at_s)
            return f"{who} can withdraw {shown(result.amount, result.token)} as request {result.id} from {ready} on."
        case verbs.UnstakeCancelled():
            return f"{who} has cancelled request {result.id}; {shown(result.amount, result.token)} stay staked."
        case verbs.Withdrawn():
            return f"{who} has withdrawn {shown(result.amount, result.token)} (request {result.id})."
        case verbs.Redirected():
            ready = when(result.effective_at_s, now_s=result.at_s)
            return (
                f"{shown(result.amount, 'DIEM')} of {who} go to {result.new_beneficiary} at operator {result.new_operator} "
                f"from {ready} on."
            )
        case verbs.DepositMade():
            return f"{who} has deposited {shown(result.amount, 'USDC')} for {result.beneficiary}."
        case verbs.Transferred():
            return f"{who} has sent {shown(result.amount, result.token)} to {result.to}."
        case dev.Funded():
            return f"{who} ({result.address}) has got {shown(result.hold, 'HOLD')} and {shown(result.usdc, 'USDC')}."
    raise AssertionError(f"{type(result).__name__} is told nowhere")
