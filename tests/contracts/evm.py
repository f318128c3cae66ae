"""An in-process EVM for tests: deploy by artifact, call by name, read events and named refusals, move time.

Calls cost some 30 µs, so that a property test can afford tens of thousands of them. Addresses are lower-case text
throughout, bytes are bytes.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import coincurve
import pyrevm
from eth_abi import decode, encode
from eth_utils import keccak

DEV_CHAIN_ID = 402031
DAY_S = 86_400
START_S = 20_000 * DAY_S
"""A midnight, UTC, in 2024."""

_GAS = 10**11
_OUTPUT = re.compile(r"output: 0x([0-9a-f]*)")
_PANIC = bytes.fromhex("4e487b71")
_ERROR = bytes.fromhex("08c379a0")


class Refused(Exception):
    """A call that reverted: the custom error's name and arguments ("Error" and a text for an old-style one)."""

    def __init__(self, name: str, *args: Any) -> None:
        super().__init__(f"{name}{args}")
        self.name = name
        self.arguments = args


@contextmanager
def refused(name: str, *arguments: Any) -> Iterator[None]:
    """Passes if what is inside reverts with this error and exactly these arguments."""
    try:
        yield
    except Refused as refusal:
        assert (refusal.name, refusal.arguments) == (name, arguments)
    else:
        raise AssertionError(f"{name}{arguments} was not raised")


@dataclass(frozen=True, slots=True)
class Event:
    address: str
    name: str
    arguments: Mapping[str, Any]
    time_s: int


@dataclass(frozen=True, slots=True)
class Signer:
    """A key of a test, and the address it signs for."""

    key: coincurve.PrivateKey
    address: str = field(init=False)

    def __post_init__(self) -> None:
        public = self.key.public_key.format(compressed=False)[1:]
        object.__setattr__(self, "address", "0x" + keccak(public)[12:].hex())

    @classmethod
    def of(cls, name: str) -> "Signer":
        return cls(coincurve.PrivateKey(keccak(text=name)))

    def sign(self, digest: bytes) -> bytes:
        """65 bytes: r, s, v."""
        signature = self.key.sign_recoverable(digest, hasher=None)
        return signature[:64] + bytes([27 + signature[64]])

    def vrs(self, digest: bytes) -> tuple[int, bytes, bytes]:
        signature = self.sign(digest)
        return signature[64], signature[:32], signature[32:64]


def typed_digest(domain: bytes, type_text: str, *values: Any) -> bytes:
    """The EIP-712 digest of a struct of static fields, such as "Permit(address owner,uint256 value)"."""
    types = [part.split()[0] for part in type_text[type_text.index("(") + 1 : -1].split(",")]
    body = keccak(keccak(text=type_text) + encode(types, values))
    return keccak(b"\x19\x01" + domain + body)


class Evm:
    """One chain. `now_s` is the time of every call until `warp` or `warp_to`."""

    def __init__(self, *, chain_id: int = DEV_CHAIN_ID, now_s: int = START_S) -> None:
        self.now_s = now_s
        self.chain_id = chain_id
        self._number = 1
        config = pyrevm.CfgEnv(chain_id=chain_id)
        self._evm = pyrevm.EVM(env=pyrevm.Env(cfg=config), gas_limit=_GAS, spec_id="CANCUN")
        self._errors: dict[bytes, tuple[str, list[str]]] = {}
        self._events: dict[tuple[bytes, int], tuple[str, list[tuple[str, str, bool]]]] = {}
        """By topic and number of topics: Transfer has two in an ERC-20 and three in an ERC-721."""
        self._set_block()

    def warp(self, seconds: int) -> None:
        self.warp_to(self.now_s + seconds)

    def warp_to(self, time_s: int) -> None:
        """Makes a block at that time. Never backwards."""
        assert time_s >= self.now_s
        self.now_s = time_s
        self._number += 1
        self._set_block()

    @property
    def today(self) -> int:
        return self.now_s // DAY_S

    @contextmanager
    def undone(self) -> Iterator[None]:
        """Whatever happens inside, the chain is afterwards as it was. May be nested."""
        checkpoint, number, now_s = self._evm.snapshot(), self._number, self.now_s
        try:
            yield
        finally:
            self._evm.revert(checkpoint)
            self._number, self.now_s = number, now_s
            self._set_block()

    def deploy(
        self, artifact: Mapping[str, Any], *args: Any, sender: str, libraries: Mapping[str, str] | None = None
    ) -> "Contract":
        code = _linked(artifact, libraries or {})
        abi = artifact["abi"]
        constructor = next((entry for entry in abi if entry["type"] == "constructor"), {"inputs": []})
        data = code + encode([_type(i) for i in constructor["inputs"]], args)
        try:
            address = self._evm.deploy(sender, data)
        except RuntimeError as error:
            self.learn(abi)
            raise self._refusal(error) from None
        return Contract(self, abi, address)

    def put_code(self, address: str, code: bytes, storage: Mapping[int, int] | None = None) -> None:
        self._evm.insert_account_info(address, pyrevm.AccountInfo(nonce=1, code=code))
        for slot, value in (storage or {}).items():
            self._evm.insert_account_storage(address, slot, value)

    def code(self, address: str) -> bytes:
        """Of a deployed contract."""
        return bytes(self._evm.get_code(address) or b"")

    def refusal_of(self, output: bytes) -> Refused:
        """What a call inside another was refused with."""
        return self._refusal(RuntimeError(f"output: 0x{output.hex()}"))

    def learn(self, abi: Sequence[Mapping[str, Any]]) -> None:
        """Lets errors and events of `abi` be read by name."""
        for entry in abi:
            if entry["type"] == "error":
                types = [_type(i) for i in entry["inputs"]]
                self._errors[_selector(entry["name"], types)] = (entry["name"], types)
            elif entry["type"] == "event":
                fields = [(i["name"], _type(i), i["indexed"]) for i in entry["inputs"]]
                topic = keccak(text=f"{entry['name']}({','.join(kind for _, kind, _ in fields)})")
                self._events[topic, 1 + sum(is_topic for *_, is_topic in fields)] = (entry["name"], fields)

    def call(self, sender: str, to: str, data: bytes, *, static: bool) -> bytes:
        try:
            return bytes(self._evm.message_call(sender, to, calldata=data, is_static=static))
        except RuntimeError as error:
            raise self._refusal(error) from None

    def events(self) -> list[Event]:
        """Those of the last call or deployment that wasn't a view, in order."""
        found = []
        for log in self._evm.result.logs:
            topics, data = log.data
            name, fields = self._events[bytes(topics[0]), len(topics)]
            indexed = iter(topics[1:])
            plain = iter(decode([kind for _, kind, is_topic in fields if not is_topic], bytes(data)))
            values = {
                field_name: decode([kind], bytes(next(indexed)))[0] if is_topic else next(plain)
                for field_name, kind, is_topic in fields
            }
            found.append(Event(log.address.lower(), name, values, self.now_s))
        return found

    @property
    def gas_used(self) -> int:
        """Of the last call."""
        return int(self._evm.result.gas_used)

    def _set_block(self) -> None:
        self._evm.set_block_env(pyrevm.BlockEnv(number=self._number, timestamp=self.now_s, gas_limit=_GAS))

    def _refusal(self, error: RuntimeError) -> Refused:
        match = _OUTPUT.search(str(error))
        output = bytes.fromhex(match.group(1)) if match else b""
        selector, body = output[:4], output[4:]
        if selector in self._errors:
            name, types = self._errors[selector]
            return Refused(name, *decode(types, body))
        if selector == _ERROR:
            return Refused("Error", decode(["string"], body)[0])
        if selector == _PANIC:
            return Refused("Panic", decode(["uint256"], body)[0])
        return Refused("Unknown", str(error))


class Function:
    """One function of a contract, all its overloads: the call's number of arguments chooses."""

    def __init__(self, contract: "Contract", name: str) -> None:
        self._contract = contract
        self._name = name
        self._overloads: dict[int, tuple[bytes, list[str], list[str], bool]] = {}

    def add(self, entry: Mapping[str, Any]) -> None:
        inputs, outputs = ([_type(i) for i in entry[side]] for side in ("inputs", "outputs"))
        static = entry["stateMutability"] in ("view", "pure")
        assert len(inputs) not in self._overloads, f"two overloads of {self._name} take {len(inputs)} arguments"
        self._overloads[len(inputs)] = (_selector(self._name, inputs), inputs, outputs, static)

    def data(self, *args: Any) -> bytes:
        selector, inputs, _, _ = self._overloads[len(args)]
        return selector + _encode(inputs, args)

    def __call__(self, *args: Any, sender: str = "0x" + "ee" * 20) -> Any:
        selector, inputs, outputs, static = self._overloads[len(args)]
        data = selector + _encode(inputs, args)
        returned = self._contract.evm.call(sender, self._contract.address, data, static=static)
        if outputs == ["uint256"]:
            return int.from_bytes(returned[:32])
        values = decode(outputs, returned)
        return values[0] if len(values) == 1 else (values or None)


class Contract:
    """A deployed contract: `contract.stake(recipient, amount, sender=address)`."""

    def __init__(self, evm: Evm, abi: Sequence[Mapping[str, Any]], address: str) -> None:
        self.evm = evm
        self.address = address.lower()
        self._functions: dict[str, Function] = {}
        evm.learn(abi)
        for entry in abi:
            if entry["type"] == "function":
                name = entry["name"]
                self._functions.setdefault(name, Function(self, name)).add(entry)

    def __getattr__(self, name: str) -> Function:
        try:
            return self._functions[name]
        except KeyError:
            raise AttributeError(name) from None


def _type(entry: Mapping[str, Any]) -> str:
    kind = str(entry["type"])
    if not kind.startswith("tuple"):
        return kind
    return "(" + ",".join(_type(part) for part in entry["components"]) + ")" + kind[len("tuple") :]


def _selector(name: str, types: Sequence[str]) -> bytes:
    return keccak(text=f"{name}({','.join(types)})")[:4]


def _encode(types: Sequence[str], args: Sequence[Any]) -> bytes:
    """ABI encoding; addresses and uint256, which most arguments are, without eth_abi's many checks."""
    if all(kind in ("address", "uint256") for kind in types):
        return b"".join((int(arg, 16) if isinstance(arg, str) else arg).to_bytes(32) for arg in args)
    return encode(types, args)


def _linked(artifact: Mapping[str, Any], libraries: Mapping[str, str]) -> bytes:
    code = artifact["bytecode"].removeprefix("0x")
    for file in artifact.get("linkReferences", {}).values():
        for name, places in file.items():
            for place in places:
                start = 2 * place["start"]
                code = code[:start] + libraries[name].removeprefix("0x") + code[start + 40 :]
    return bytes.fromhex(code)
