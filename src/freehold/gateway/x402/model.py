"""x402, version 2, scheme `exact`: what is asked, what is paid, and how both cross the wire. Pure.

Amounts are base units of the token, times unix seconds of block time.
"""

import base64
import binascii
import re
from dataclasses import dataclass
from typing import Any

import coincurve
import msgspec
from eth_abi.abi import encode
from eth_utils.address import is_address, to_checksum_address
from eth_utils.crypto import keccak

from freehold.money import MAX_NANO, NANO_PER_USDC_UNIT, USDC_DECIMALS, format_units
from freehold.problems import InvalidRequest

VERSION = 2
SCHEME = "exact"
SIGNATURE = "PAYMENT-SIGNATURE"
"""The request header that carries a payment."""

LONGEST_HEADER = 16 * 1024
LEAST_LEFT_S = 6
"""An authorization that ends sooner can't be sure to be mined."""

_DOMAIN = keccak(text="EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)")
_TRANSFER = keccak(
    text="TransferWithAuthorization(address from,address to,uint256 value,"
    "uint256 validAfter,uint256 validBefore,bytes32 nonce)"
)
_NUMBER = re.compile(r"[0-9]{1,78}")


class Unacceptable(Exception):
    """Why a payment isn't taken: the end of a sentence, without its full stop."""


@dataclass(frozen=True, slots=True)
class Terms:
    """What payments here look like: one token on one chain, to one address."""

    chain_id: int
    token: str
    pay_to: str
    name: str
    """`name` and `version` are those of the token's EIP-712 domain."""
    version: str

    @property
    def network(self) -> str:
        return f"eip155:{self.chain_id}"

    def domain_separator(self) -> bytes:
        """EIP-712's, of the token."""
        return keccak(
            encode(
                ["bytes32", "bytes32", "bytes32", "uint256", "address"],
                [_DOMAIN, keccak(text=self.name), keccak(text=self.version), self.chain_id, self.token],
            )
        )


@dataclass(frozen=True, slots=True)
class Authorization:
    """An ERC-3009 TransferWithAuthorization, signed."""

    payer: str
    pay_to: str
    value: int
    valid_after: int
    valid_before: int
    nonce: bytes
    signature: bytes

    def digest(self, terms: Terms) -> bytes:
        """What was signed (EIP-712)."""
        body = encode(
            ["bytes32", "address", "address", "uint256", "uint256", "uint256", "bytes32"],
            [_TRANSFER, self.payer, self.pay_to, self.value, self.valid_after, self.valid_before, self.nonce],
        )
        return keccak(b"\x19\x01" + terms.domain_separator() + keccak(body))


@dataclass(frozen=True, slots=True)
class Payment:
    """What a client sends: the authorization, and which offer it accepts."""

    scheme: str
    network: str
    asset: str
    authorization: Authorization

    def name(self, terms: Terms) -> str:
        """The external id of its credit: `x402:<chain>:<token>:<payer>:<nonce>`."""
        return payment_name(terms.chain_id, terms.token, self.authorization.payer, self.authorization.nonce)


@dataclass(frozen=True, slots=True)
class Settled:
    """A payment that was credited."""

    account_id: int
    payer: str
    amount: int
    network: str
    tx_hash: str
    name: str
    credited_at_s: float


def payment_name(chain_id: int, token: str, payer: str, nonce: bytes) -> str:
    return f"x402:{chain_id}:{token}:{payer}:0x{nonce.hex()}"


def units_up(nano: int, *, least: int) -> int:
    """nano-USD in base units of USDC, rounded up, and at least `least`."""
    return max(least, -(-nano // NANO_PER_USDC_UNIT))


def usdc(units: int) -> str:
    return format_units(units, decimals=USDC_DECIMALS)


def offer(terms: Terms, *, units: int, timeout_s: int) -> dict[str, Any]:
    """x402's PaymentRequirements."""
    return {
        "scheme": SCHEME,
        "network": terms.network,
        "asset": terms.token,
        "amount": str(units),
        "payTo": terms.pay_to,
        "maxTimeoutSeconds": timeout_s,
        "extra": {"name": terms.name, "version": terms.version},
    }


def required(accepts: dict[str, Any], *, url: str, description: str, error: str) -> str:
    """The value of the header PAYMENT-REQUIRED."""
    resource = {"url": url, "description": description, "mimeType": "application/json"}
    return _encode({"x402Version": VERSION, "error": error, "resource": resource, "accepts": [accepts]})


def settled_response(settled: Settled) -> str:
    """The value of the header PAYMENT-RESPONSE of a payment that was credited."""
    return _encode(
        {
            "success": True,
            "transaction": settled.tx_hash,
            "network": settled.network,
            "payer": settled.payer,
            "amount": str(settled.amount),
        }
    )


def refused_response(terms: Terms, payer: str | None, reason: str) -> str:
    """The value of the header PAYMENT-RESPONSE of a payment that was refused."""
    told = {"success": False, "errorReason": reason, "transaction": "", "network": terms.network}
    return _encode({**told, "payer": payer} if payer else told)


def read(header: str) -> Payment:
    """The value of the header PAYMENT-SIGNATURE. Raises InvalidRequest, which names what is wrong with it."""
    if len(header) > LONGEST_HEADER:
        raise _unreadable(f"it is longer than {LONGEST_HEADER} characters")
    try:
        sent = msgspec.json.decode(base64.b64decode(header.strip(), validate=True))
    except (binascii.Error, msgspec.DecodeError, UnicodeDecodeError, ValueError, RecursionError):
        raise _unreadable("it is not JSON in base64") from None
    version = _of(sent, "x402Version")
    if version != VERSION:
        raise _unreadable(f"its x402Version is {str(version)[:20]}, and this server speaks {VERSION}")
    accepted = _of(sent, "accepted")
    payload = _of(sent, "payload")
    scheme = _text(accepted, "scheme")
    if scheme != SCHEME:
        raise _unreadable(f"its scheme is {scheme[:40]}, and this server takes {SCHEME}")
    if not isinstance(payload, dict) or "authorization" not in payload:
        raise _unreadable("its payload has no ERC-3009 authorization")
    signed = payload["authorization"]
    return Payment(
        scheme=scheme,
        network=_text(accepted, "network"),
        asset=_address(accepted, "asset"),
        authorization=Authorization(
            payer=_address(signed, "from"),
            pay_to=_address(signed, "to"),
            value=_number(signed, "value"),
            valid_after=_number(signed, "validAfter"),
            valid_before=_number(signed, "validBefore"),
            nonce=_bytes(signed, "nonce", size=32),
            signature=_bytes(payload, "signature"),
        ),
    )


def check(payment: Payment, terms: Terms, *, least: int, now_s: int, longest_s: int) -> None:
    """Raises Unacceptable for a payment that isn't what was asked. `now_s` is the chain's time."""
    signed = payment.authorization
    if payment.network != terms.network:
        raise Unacceptable(f"it is on the network {payment.network[:60]}, and {terms.network} was asked")
    if payment.asset != terms.token:
        raise Unacceptable(f"its asset is {payment.asset}, and USDC at {terms.token} was asked")
    if signed.pay_to != terms.pay_to:
        raise Unacceptable(f"it pays {signed.pay_to}, and {terms.pay_to} is to be paid")
    if signed.payer == terms.pay_to:
        raise Unacceptable("its payer is the operator's own treasury, which can't pay itself")
    if signed.value < least:
        raise Unacceptable(f"it is {usdc(signed.value)} USDC, less than the {usdc(least)} that are asked")
    if signed.value > MAX_NANO // NANO_PER_USDC_UNIT:
        raise Unacceptable("it is more than an account can hold")
    if signed.valid_before < now_s + LEAST_LEFT_S:
        how = "it has expired" if signed.valid_before <= now_s else f"it expires within {LEAST_LEFT_S} s"
        raise Unacceptable(f"{how} (validBefore is {signed.valid_before}, and the chain's time is {now_s})")
    if signed.valid_after >= now_s:
        raise Unacceptable(f"it is not valid before {signed.valid_after}, and the chain's time is {now_s}")
    if signed.valid_before > now_s + longest_s:
        raise Unacceptable(f"it is valid for longer than {longest_s // 3600} hours; sign one that ends sooner")


def signer(digest: bytes, signature: bytes) -> str | None:
    """The checksummed address whose key signed `digest`; None when none can be recovered."""
    if len(signature) != 65:
        return None
    v = signature[64] - 27 if signature[64] >= 27 else signature[64]
    try:
        key = coincurve.PublicKey.from_signature_and_message(signature[:64] + bytes([v]), digest, hasher=None)
    except Exception:  # noqa: BLE001 - coincurve raises a bare Exception for a point that isn't on the curve
        return None
    return str(to_checksum_address(keccak(key.format(compressed=False)[1:])[12:]))


def _encode(value: dict[str, Any]) -> str:
    return base64.b64encode(msgspec.json.encode(value)).decode()


def _unreadable(reason: str) -> InvalidRequest:
    return InvalidRequest(reason=f"The header {SIGNATURE} can't be read: {reason}.", param=SIGNATURE)


def _of(value: object, name: str) -> Any:
    if not isinstance(value, dict) or name not in value:
        raise _unreadable(f"{name} is missing")
    return value[name]


def _text(value: object, name: str) -> str:
    found = _of(value, name)
    if not isinstance(found, str):
        raise _unreadable(f"{name} is not a text")
    return found


def _address(value: object, name: str) -> str:
    text = _text(value, name)
    if not is_address(text) or not text.startswith("0x"):
        raise _unreadable(f"{name} is not an address")
    return str(to_checksum_address(text))


def _number(value: object, name: str) -> int:
    found = _of(value, name)
    text = str(found) if type(found) is int else found
    if not isinstance(text, str) or not _NUMBER.fullmatch(text) or int(text) >= 2**256:
        raise _unreadable(f"{name} is not a whole number")
    return int(text)


def _bytes(value: object, name: str, *, size: int | None = None) -> bytes:
    text = _text(value, name)
    try:
        found = bytes.fromhex(text.removeprefix("0x"))
    except ValueError:
        raise _unreadable(f"{name} is not hexadecimal") from None
    if size is not None and len(found) != size:
        raise _unreadable(f"{name} has {len(found)} bytes, not {size}")
    return found
