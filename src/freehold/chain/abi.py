"""A contract's ABI as a codec: calls out, results, events and errors in. Knows no node.

Integers stay integers, addresses come out checksummed, bytes as bytes. Overloads are named by their whole
signature, such as `transfer(address,uint256)`.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from eth_abi.abi import decode, encode
from eth_abi.exceptions import DecodingError, EncodingError
from eth_utils.address import to_checksum_address
from eth_utils.crypto import keccak

Abi = Sequence[Mapping[str, Any]]

PANICS = {
    0x01: "an assertion failed",
    0x11: "a number became too large or negative",
    0x12: "a division by zero",
    0x32: "an index out of range",
}


class AbiError(ValueError):
    """What was asked doesn't fit the ABI, or what came doesn't; the text says how."""


@dataclass(frozen=True, slots=True)
class Log:
    """One log of a node's answer, as integers and bytes."""

    address: str
    topics: tuple[bytes, ...]
    data: bytes
    block_number: int
    block_hash: str
    tx_hash: str
    log_index: int


@dataclass(frozen=True, slots=True)
class Failure:
    """A decoded revert: the error's name and its arguments."""

    name: str
    arguments: Mapping[str, Any]

    def sentence(self) -> str:
        """In words: `insufficient stake (requested 5, available 3)`."""
        if self.name == "Error":
            return str(self.arguments["message"]).strip().rstrip(".") or "it gives no reason"
        if self.name == "Panic":
            code = int(self.arguments["code"])
            return PANICS.get(code, f"panic {code:#x}")
        said = words(self.name)
        facts = ", ".join(f"{words(name)} {_plain(value)}" for name, value in self.arguments.items())
        return f"{said} ({facts})" if facts else said


@dataclass(frozen=True, slots=True)
class Signature:
    """A function, event or error of an ABI."""

    name: str
    inputs: tuple[Mapping[str, Any], ...]
    outputs: tuple[Mapping[str, Any], ...]

    @property
    def text(self) -> str:
        return f"{self.name}({','.join(_types(self.inputs))})"

    @property
    def hash(self) -> bytes:
        return keccak(text=self.text)

    @property
    def selector(self) -> bytes:
        return self.hash[:4]


class Contract:
    """An ABI, and where it lives, if it does already."""

    def __init__(self, abi: Abi, *, address: str | None = None, name: str = "contract") -> None:
        self.abi = abi
        self.name = name
        self._address = to_checksum_address(address) if address else None
        self._functions = _by_name(abi, "function")
        self._events = {s.hash: s for group in _by_name(abi, "event").values() for s in group}
        self._errors = {s.selector: s for group in _by_name(abi, "error").values() for s in group}

    @property
    def address(self) -> str:
        """Checksummed. Raises AbiError for a contract that is only a template."""
        if self._address is None:
            raise AbiError(f"{self.name} has no address.")
        return self._address

    def at(self, address: str) -> "Contract":
        return Contract(self.abi, address=address, name=self.name)

    def call(self, function: str, *arguments: Any) -> str:
        """Call data as hex. Raises AbiError for an unknown function or arguments that don't fit."""
        found = self._function(function)
        return "0x" + (found.selector + _encode(found.text, found.inputs, arguments)).hex()

    def result(self, function: str, data: str | bytes) -> Any:
        """A call's result: nothing → None, one value → the value, several → a tuple."""
        found = self._function(function)
        raw = from_hex(data) if isinstance(data, str) else data
        values = _decode(f"{self.name}.{found.text}", found.outputs, raw)
        return None if not values else values[0] if len(values) == 1 else values

    def calling(self, data: bytes) -> tuple[str, dict[str, Any]] | None:
        """Name and arguments of call data; None when it calls none of this ABI's functions."""
        for group in self._functions.values():
            for found in group:
                if found.selector == data[:4]:
                    values = _decode(f"{self.name}.{found.text}", found.inputs, data[4:])
                    names = [item["name"] for item in found.inputs]
                    return found.name, dict(zip(names, values, strict=True))
        return None

    def constructor(self, *arguments: Any) -> bytes:
        """Encoded constructor arguments, to go behind the bytecode."""
        inputs: tuple[Mapping[str, Any], ...] = ()
        for item in self.abi:
            if item["type"] == "constructor":
                inputs = tuple(item.get("inputs", ()))
        return _encode(f"{self.name}'s constructor", inputs, arguments)

    def topic(self, event: str) -> str:
        """The first topic of an event, as hex. Raises AbiError for an unknown event."""
        for signature in self._events.values():
            if signature.name == event:
                return "0x" + signature.hash.hex()
        raise AbiError(f"{self.name} has no event {event}.")

    def event(self, log: Log) -> tuple[str, dict[str, Any]] | None:
        """Name and arguments of a log; None when it is none of this ABI's events."""
        signature = self._events.get(log.topics[0]) if log.topics else None
        if signature is None:
            return None
        indexed = [item for item in signature.inputs if item.get("indexed")]
        plain = [item for item in signature.inputs if not item.get("indexed")]
        if len(indexed) != len(log.topics) - 1:
            return None
        values: dict[str, Any] = {}
        for item, topic in zip(indexed, log.topics[1:], strict=True):
            values[item["name"]] = topic if _hashed(item["type"]) else _decode(signature.text, (item,), topic)[0]
        values |= zip((item["name"] for item in plain), _decode(signature.text, plain, log.data), strict=True)
        return signature.name, {item["name"]: values[item["name"]] for item in signature.inputs}

    def failure(self, data: bytes | None) -> Failure | None:
        """A revert's data as its error; None when there is none, or it is unknown to this ABI."""
        return decode_failure(data, [self])

    def _function(self, name: str) -> Signature:
        group = self._functions.get(name.partition("(")[0], [])
        if "(" in name:
            group = [signature for signature in group if signature.text == name]
        if len(group) != 1:
            how = "no function" if not group else "several functions named"
            raise AbiError(f"{self.name} has {how} {name}.")
        return group[0]


def decode_failure(data: bytes | None, contracts: Iterable[Contract]) -> Failure | None:
    """A revert's data as an error of one of `contracts` (an inner call's error comes through as it is)."""
    if not data or len(data) < 4:
        return None
    selector, rest = data[:4], data[4:]
    if selector == keccak(text="Error(string)")[:4]:
        # Not strictly: what some compilers have left behind the text is no padding.
        (message,) = _decode("Error", ({"name": "message", "type": "string"},), rest, strict=False)
        return Failure("Error", {"message": message})
    if selector == keccak(text="Panic(uint256)")[:4]:
        return Failure("Panic", {"code": _decode("Panic", ({"name": "code", "type": "uint256"},), rest)[0]})
    for contract in contracts:
        signature = contract._errors.get(selector)
        if signature is not None:
            names = (item["name"] or f"value {n + 1}" for n, item in enumerate(signature.inputs))
            values = _decode(signature.text, signature.inputs, rest)
            return Failure(signature.name, dict(zip(names, values, strict=True)))
    return None


@cache
def artifact(name: str) -> Mapping[str, Any]:
    """A compiled contract that ships with Freehold: `{"abi", "bytecode", …}`."""
    text = files("freehold.chain").joinpath("artifacts", f"{name}.json").read_text("utf-8")
    loaded: Mapping[str, Any] = json.loads(text)
    return loaded


@cache
def template(name: str) -> Contract:
    """A shipped contract's ABI, without an address."""
    return Contract(artifact(name)["abi"], name=name)


def read_log(raw: Mapping[str, Any]) -> Log:
    """A log object of JSON-RPC."""
    return Log(
        address=to_checksum_address(raw["address"]),
        topics=tuple(from_hex(topic) for topic in raw["topics"]),
        data=from_hex(raw["data"]),
        block_number=int(raw["blockNumber"], 16),
        block_hash=raw["blockHash"],
        tx_hash=raw["transactionHash"],
        log_index=int(raw["logIndex"], 16),
    )


def from_hex(text: str) -> bytes:
    return bytes.fromhex(text.removeprefix("0x"))


def words(name: str) -> str:
    """`InsufficientUSDCBalance` → `insufficient USDC balance`."""
    out: list[str] = []
    for index, letter in enumerate(name):
        after_small = index > 0 and not name[index - 1].isupper()
        before_small = index + 1 < len(name) and name[index + 1].islower()
        if letter.isupper() and index > 0 and (after_small or before_small):
            out.append(" ")
        out.append(letter)
    parts = "".join(out).replace("_", " ").split()
    return " ".join(part if len(part) > 1 and part.isupper() else part.lower() for part in parts)


def _plain(value: Any) -> str:
    return "0x" + value.hex() if isinstance(value, bytes) else str(value)


def _by_name(abi: Abi, kind: str) -> dict[str, list[Signature]]:
    groups: dict[str, list[Signature]] = {}
    for item in abi:
        if item["type"] == kind and not item.get("anonymous"):
            signature = Signature(item["name"], tuple(item.get("inputs", ())), tuple(item.get("outputs", ())))
            groups.setdefault(signature.name, []).append(signature)
    return groups


def _types(items: Iterable[Mapping[str, Any]]) -> list[str]:
    return [_type(item) for item in items]


def _type(item: Mapping[str, Any]) -> str:
    kind: str = item["type"]
    if kind.startswith("tuple"):
        return f"({','.join(_types(item['components']))}){kind.removeprefix('tuple')}"
    return kind


def _hashed(kind: str) -> bool:
    """Indexed values of these types are only present as their hash."""
    return kind in ("string", "bytes") or kind.endswith("]") or kind.startswith("tuple")


def _encode(what: str, items: Sequence[Mapping[str, Any]], arguments: Sequence[Any]) -> bytes:
    if len(items) != len(arguments):
        raise AbiError(f"{what} takes {len(items)} arguments, not {len(arguments)}.")
    try:
        return encode(_types(items), list(arguments))
    except (EncodingError, TypeError, ValueError) as error:
        raise AbiError(f"The arguments don't fit {what}: {error}") from None


def _decode(what: str, items: Sequence[Mapping[str, Any]], data: bytes, *, strict: bool = True) -> tuple[Any, ...]:
    kinds = _types(items)
    try:
        values = decode(kinds, data, strict=strict)
    except (DecodingError, OverflowError) as error:
        raise AbiError(f"The answer doesn't fit {what}: {error}") from None
    return tuple(_checksummed(kind, value) for kind, value in zip(kinds, values, strict=True))


def _checksummed(kind: str, value: Any) -> Any:
    if kind == "address":
        return to_checksum_address(value)
    if kind == "address[]":
        return tuple(to_checksum_address(item) for item in value)
    return value
