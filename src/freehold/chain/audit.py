"""Whether contracts on a chain are what they should be: their code, who they belong to, and who has which right.

Code is compared with what the sources compile to, byte by byte; immutables, which the constructor puts into it, must be
the addresses and numbers of this deployment. Roles are followed from the timelock's events, so none is overlooked.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from eth_utils.crypto import keccak

from freehold.chain.abi import Contract, artifact, from_hex, read_log, template
from freehold.chain.contracts import Contracts
from freehold.chain.deploy import ANYONE, LEAST_DELAY_S, role_of, shipped_curve
from freehold.chain.governance import timelock_of
from freehold.chain.journal import Begun
from freehold.chain.model import DEV_CHAIN_ID, Deployment
from freehold.chain.problems import Reverted, RpcError
from freehold.chain.rpc import Rpc
from freehold.chain.verbs import reads

KINDS = {
    "timelock": "FreeholdTimelock",
    "staking": "Staking",
    "hold": "Hold",
    "diem": "Diem",
    "vault": "CapacityVault",
    "strips": "Strips",
    "prepaid": "Prepaid",
    "book": "EpochBook",
}
ROLES = ("DEFAULT_ADMIN_ROLE", "PROPOSER_ROLE", "CANCELLER_ROLE", "EXECUTOR_ROLE")
_ERC3009 = [
    {
        "type": "function",
        "name": "authorizationState",
        "inputs": [{"name": "", "type": "address"}, {"name": "", "type": "bytes32"}],
        "outputs": [{"name": "", "type": "bool"}],
    },
    {"type": "function", "name": "decimals", "inputs": [], "outputs": [{"name": "", "type": "uint8"}]},
]
_RANGE = 10_000
"""Blocks whose logs common providers give at once."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at."""

    what: str
    found: str
    right: bool = True
    expected: str = ""
    """Where it isn't right."""


async def audit(
    rpc: Rpc, deployment: Deployment, begun: Begun | None = None, *, fresh: bool = False, waiting: bool = False
) -> list[Finding]:
    """Everything that can be told from the chain. Raises NodeUnavailable, RpcError.

    With `begun`, what it was deployed as: the deployer must have no right, and what can never change must be as it was
    meant. `fresh`: nothing was governed yet, so that also what the timelock may change must be. `waiting`: the first
    settings aren't in force yet.
    """
    tag = await rpc.call("eth_blockNumber")
    found = await _codes(rpc, deployment, tag)
    if not all(one.right for one in found):
        return found  # what other code answers proves nothing
    found += await _wiring(rpc, deployment, begun, tag)
    found += await _rights(rpc, deployment, begun, tag, fresh=fresh)
    found += await _governed(rpc, deployment, begun, tag, fresh=fresh, waiting=waiting)
    return found


async def usdc_fault(rpc: Rpc, address: str) -> str | None:
    """Why a contract can't serve as USDC: six decimals, and ERC-3009, by which x402 pays; None when it can."""
    token = Contract(_ERC3009, address=address, name="USDC")
    if await rpc.call("eth_getCode", address, "latest") in ("0x", None):
        return "there is no contract at that address"
    try:
        decimals, _ = await reads(
            rpc, "latest", [(token, "decimals", ()), (token, "authorizationState", (address, bytes(32)))]
        )
    except (RpcError, Reverted, ValueError):
        return "it doesn't know ERC-3009 (authorizationState), by which payments are made"
    return None if decimals == 6 else f"it has {decimals} decimals, and USDC has 6"


def code_fault(name: str, code: bytes, words: Iterable[bytes]) -> str | None:
    """How code on a chain differs from the contract `name`, whose immutables are among `words`; None when it doesn't."""
    compiled = artifact(name)
    start, length = (compiled["runtime"][part] for part in ("start", "length"))
    if len(code) != length:
        return f"{len(code)} bytes instead of {length}" if code else "no code"
    expected = bytearray(from_hex(compiled["bytecode"])[start : start + length])
    known = set(words)
    for at in compiled["runtime"]["immutables"]:
        if code[at : at + 32] not in known:
            return f"an immutable is 0x{code[at : at + 32].hex()}"
        expected[at : at + 32] = code[at : at + 32]
    if code != expected:
        return f"other code from byte {next(at for at, byte in enumerate(code) if byte != expected[at])} on"
    return None


async def _codes(rpc: Rpc, deployment: Deployment, tag: str) -> list[Finding]:
    where = deployment.contracts
    strips = template("Strips").at(where["strips"])
    kinds = {where[name]: kind for name, kind in KINDS.items()}
    codes = await rpc.batch([("eth_getCode", [address, tag]) for address in (*kinds, where["usdc"])])
    try:
        implementation = (await reads(rpc, tag, [(strips, "IMPLEMENTATION", ())]))[0]
        codes.insert(len(kinds), await rpc.call("eth_getCode", implementation, tag))
        kinds[implementation] = "Strip"
        words = await _immutables(rpc, deployment, implementation, tag)
    except (Reverted, RpcError, ValueError):
        words = {}
    found = []
    for (address, kind), code in zip(kinds.items(), codes, strict=False):
        fault = code_fault(kind, from_hex(code or "0x"), words.get(address, words.get("", ())))
        found.append(
            Finding(
                f"code of {kind}", address if fault is None else f"{address}: {fault}", fault is None, "as compiled"
            )
        )
    usdc = codes[-1] not in ("0x", None)
    found.append(Finding("USDC", where["usdc"], usdc, "a contract"))
    return found


async def _immutables(rpc: Rpc, deployment: Deployment, implementation: str, tag: str) -> dict[str, set[bytes]]:
    """What may stand in the code of each contract; under "" for those without a domain of their own (EIP-712)."""
    where = deployment.contracts
    ceiling, treasury, hold, diem = await reads(
        rpc,
        tag,
        [
            (template("Staking").at(where["staking"]), "EMISSION_CEILING", ()),
            (template("Prepaid").at(where["prepaid"]), "TREASURY", ()),
            (template("Hold").at(where["hold"]), "name", ()),
            (template("Diem").at(where["diem"]), "name", ()),
        ],
    )
    shared = {_word(address) for address in (*where.values(), deployment.operator, treasury, implementation)}
    shared.add(ceiling.to_bytes(32, "big"))
    return {
        "": shared,
        where["hold"]: shared | _domain(deployment.chain_id, where["hold"], hold),
        where["diem"]: shared | _domain(deployment.chain_id, where["diem"], diem),
    }


def _domain(chain_id: int, address: str, name: str) -> set[bytes]:
    """What OpenZeppelin's EIP712 keeps in the code: version 1, name and version as short strings and hashed."""
    kind = keccak(text="EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)")
    names, versions = keccak(text=name), keccak(text="1")
    chain = chain_id.to_bytes(32, "big")
    short = {
        text.encode().ljust(31, b"\0") + bytes([len(text.encode())]) for text in (name, "1") if len(text.encode()) < 32
    }
    return {names, versions, chain, keccak(kind + names + versions + chain + _word(address)), *short, _LONG}


_LONG = bytes(31) + b"\xff"
"""In the place of a name that is too long for a word; it is in storage then."""


async def _wiring(rpc: Rpc, deployment: Deployment, begun: Begun | None, tag: str) -> list[Finding]:
    """What can never change."""
    where, contracts = deployment.contracts, Contracts.of(deployment)
    links: list[tuple[Contract, str, str]] = [
        (contracts.staking, "TIMELOCK", where["timelock"]),
        (contracts.vault, "TIMELOCK", where["timelock"]),
        (contracts.book, "TIMELOCK", where["timelock"]),
        (contracts.staking, "HOLD", where["hold"]),
        (contracts.staking, "DIEM", where["diem"]),
        (contracts.hold, "STAKING", where["staking"]),
        (contracts.diem, "STAKING", where["staking"]),
        (contracts.vault, "STAKING", where["staking"]),
        (contracts.vault, "DIEM", where["diem"]),
        (contracts.vault, "STRIPS", where["strips"]),
        (contracts.strips, "DIEM", where["diem"]),
        (contracts.strips, "STAKING", where["staking"]),
        (contracts.strips, "VAULT", where["vault"]),
        (template("Prepaid").at(where["prepaid"]), "USDC", where["usdc"]),
        (contracts.book, "OPERATOR", deployment.operator),
    ]
    asked: list[tuple[Contract, str, tuple[Any, ...]]] = [(contract, name, ()) for contract, name, _ in links]
    answers = await reads(rpc, tag, asked)
    found = [
        Finding(f"{contract.name}.{name}", str(answer), answer == expected, expected)
        for (contract, name, expected), answer in zip(links, answers, strict=True)
    ]
    facts: list[tuple[Contract, str]] = [(contracts.prepaid, "TREASURY"), (contracts.staking, "EMISSION_CEILING")]
    facts += [(token, part) for token in (contracts.hold, contracts.diem) for part in ("name", "symbol")]
    answers = await reads(rpc, tag, [(contract, name, ()) for contract, name in facts])
    meant: list[Any] = [None] * len(facts)
    if begun is not None:
        ours = begun.parameters
        meant[0] = ours.payee
        if ours.beside is None:
            meant[1:] = [ours.emission_ceiling, *ours.names]
    for (contract, name), answer, expected in zip(facts, answers, meant, strict=True):
        right = expected is None or answer == expected
        found.append(Finding(f"{contract.name}.{name}", str(answer), right, str(expected)))
    return found


async def _rights(rpc: Rpc, deployment: Deployment, begun: Begun | None, tag: str, *, fresh: bool) -> list[Finding]:
    """Who may do what at the timelock, and its delay."""
    timelock = timelock_of(deployment)
    first = deployment.from_block
    holders = await holders_of(rpc, timelock, first, int(tag, 16))
    (delay,) = await reads(rpc, tag, [(timelock, "getMinDelay", ())])
    least = 0 if deployment.chain_id == DEV_CHAIN_ID else LEAST_DELAY_S
    found = [
        Finding("delay of the timelock", f"{delay} s", delay >= least, f"at least {least} s"),
        Finding(
            "who administers the timelock",
            _listed(holders["DEFAULT_ADMIN_ROLE"]),
            holders["DEFAULT_ADMIN_ROLE"] == [timelock.address],
            "itself alone",
        ),
    ]
    ours = begun.parameters if begun is not None and begun.parameters.beside is None else None
    governors = sorted(ours.governors) if ours is not None and ours.governors else None
    for role, what in (("PROPOSER_ROLE", "propose"), ("CANCELLER_ROLE", "cancel"), ("EXECUTOR_ROLE", "execute")):
        meant = [ANYONE] if role == "EXECUTOR_ROLE" else governors
        right = not fresh or governors is None or sorted(holders[role]) == meant
        found.append(Finding(f"who may {what} changes", _listed(holders[role]), right, _listed(meant or [])))
    if begun is not None and governors is not None:
        rights = [role for role in ROLES if begun.deployer in holders[role]]
        (left,) = await reads(rpc, tag, [(Contracts.of(deployment).hold, "balanceOf", (begun.deployer,))])
        keeps = f"{len(rights)} rights, {left} wei of HOLD"
        right = not rights and (left == 0 or not fresh or ours is None or ours.holder == begun.deployer)
        found.append(Finding(f"left with the deployer {begun.deployer}", keeps, right, "nothing"))
    return found


async def holders_of(rpc: Rpc, timelock: Contract, first: int, last: int) -> dict[str, list[str]]:
    """Who has each role of the timelock, by its events."""
    names = {role_of(role): role for role in ROLES}
    holders: dict[str, list[str]] = {role: [] for role in ROLES}
    topics = [timelock.topic("RoleGranted"), timelock.topic("RoleRevoked")]
    for start in range(first, last + 1, _RANGE):
        asked = {"address": timelock.address, "topics": [topics], "fromBlock": hex(start)}
        for raw in await rpc.call("eth_getLogs", {**asked, "toBlock": hex(min(last, start + _RANGE - 1))}):
            event = timelock.event(read_log(raw))
            assert event is not None  # noqa: S101 - only these topics were asked for
            told, kind = event[1], event[0]
            having = holders.setdefault(names.get(told["role"], "0x" + told["role"].hex()), [])
            if kind == "RoleGranted":
                having.append(told["account"])
            elif told["account"] in having:
                having.remove(told["account"])
    return holders


async def _governed(
    rpc: Rpc, deployment: Deployment, begun: Begun | None, tag: str, *, fresh: bool, waiting: bool
) -> list[Finding]:
    """What the timelock decides: as it is; right or wrong only as long as nothing was governed."""
    contracts, operator = Contracts.of(deployment), deployment.operator
    treasury, publisher, committed, emission, curve, registered = await reads(
        rpc,
        tag,
        [
            (contracts.staking, "treasury", ()),
            (contracts.book, "publisher", ()),
            (contracts.staking, "committedOf", (operator,)),
            (contracts.staking, "emissionPerSecond", ()),
            (contracts.staking, "curve", ()),
            (contracts.vault, "operatorOf", (operator,)),
        ],
    )
    curve = [(word >> 176, word >> 96 & (1 << 80) - 1) for word in curve]  # as Curve.sol packs them
    values: Mapping[str, tuple[Any, str]] = {
        "treasury": (treasury, str(treasury)),
        "publisher of the book": (publisher, str(publisher)),
        "committed, wei of USD a day": (committed, str(committed)),
        "emission, wei of HOLD a second": (emission, str(emission)),
        "curve": (curve, "the shipped one" if curve == shipped_curve() else f"{len(curve)} points"),
        "operator's URL and receipt signer": (tuple(registered), " ".join(registered).strip()),
    }
    meant: dict[str, Any] = {}
    if begun is not None and fresh:
        ours = begun.parameters
        meant = {"publisher of the book": ours.publisher}
        if ours.beside is None:
            meant["treasury"] = ours.treasury
        if ours.beside is None and not waiting:
            meant |= {
                "committed, wei of USD a day": ours.committed,
                "emission, wei of HOLD a second": ours.emission,
                "curve": shipped_curve(),
                "operator's URL and receipt signer": (ours.url, ours.receipt_signer),
            }
    return [
        Finding(what, shown, what not in meant or meant[what] == value, _brief(meant.get(what, "")))
        for what, (value, shown) in values.items()
    ]


def _brief(value: Any) -> str:
    return "the shipped one" if value == shipped_curve() else str(value)


def _listed(addresses: Iterable[str]) -> str:
    return ", ".join("anyone" if address == ANYONE else address for address in addresses) or "nobody"


def _word(address: str) -> bytes:
    return from_hex(address).rjust(32, b"\0")
