"""Sign-in with Ethereum (EIP-4361): read a message strictly by its ABNF, check it, recover who signed it. Pure."""

import re
from dataclasses import dataclass
from datetime import datetime

import coincurve
from eth_hash.auto import keccak

from freehold.clock import rfc3339
from freehold.identity.problems import InvalidSignInMessage, SignInRefused

UNDEPLOYED = bytes.fromhex("6492") * 16
"""The end of a signature that tells how its contract wallet would be deployed (ERC-6492)."""

SKEW_S = 60
"""How far ahead of this machine's clock `Issued At` may be."""

_PCHAR = r"(?:[A-Za-z0-9\-._~!$&'()*+,;=:@]|%[0-9A-Fa-f]{2})"
_URI = r"[A-Za-z][A-Za-z0-9+\-.]*:(?:[A-Za-z0-9\-._~:/?#\[\]@!$&'()*+,;=]|%[0-9A-Fa-f]{2})+"
_TIME = r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt][0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]+)?(?:[Zz]|[+-][0-9]{2}:[0-9]{2})"
_LINES = (  # each: its name in an error, its pattern, whether it may be left out
    (
        "the first line (domain)",
        r"(?:(?P<scheme>[A-Za-z][A-Za-z0-9+\-.]*)://)?(?P<domain>[A-Za-z0-9\-._~%!$&'()*+,;=:@\[\]]+)"
        r" wants you to sign in with your Ethereum account:\n",
        False,
    ),
    ("address", r"(?P<address>0x[0-9A-Fa-f]{40})\n", False),
    ("the empty line after the address", r"\n", False),
    ("statement", r"(?P<statement>[A-Za-z0-9\-._~:/?#\[\]@!$&'()*+,;= ]+)\n", True),
    ("the empty line before URI", r"\n", False),
    ("URI", rf"URI: (?P<uri>{_URI})\n", False),
    ("Version", r"Version: (?P<version>1)\n", False),
    ("Chain ID", r"Chain ID: (?P<chain_id>[0-9]{1,78})\n", False),
    ("Nonce", r"Nonce: (?P<nonce>[A-Za-z0-9]{8,})\n", False),
    ("Issued At", rf"Issued At: (?P<issued_at>{_TIME})", False),
    ("Expiration Time", rf"\nExpiration Time: (?P<expires_at>{_TIME})", True),
    ("Not Before", rf"\nNot Before: (?P<not_before>{_TIME})", True),
    ("Request ID", rf"\nRequest ID: (?P<request_id>{_PCHAR}*)", True),
    ("Resources", rf"\nResources:(?P<resources>(?:\n- {_URI})*)", True),
)
_PATTERNS = tuple((name, re.compile(pattern), optional) for name, pattern, optional in _LINES)
_LONGEST = 4_096


@dataclass(frozen=True, slots=True)
class Message:
    """A sign-in message. Times are unix seconds; `address` is checksummed."""

    domain: str
    address: str
    uri: str
    chain_id: int
    nonce: str
    issued_at_s: float
    scheme: str | None = None
    statement: str | None = None
    expires_at_s: float | None = None
    not_before_s: float | None = None
    request_id: str | None = None
    resources: tuple[str, ...] = ()


def checksum(address: str) -> str:
    """An address in EIP-55 form. Raises ValueError when it isn't 0x and 40 hex digits."""
    plain = address[2:].lower()
    if not re.fullmatch(r"0x[0-9a-fA-F]{40}", address):
        raise ValueError(f"{address!r} is not an address: 0x and 40 hexadecimal digits")
    digits = keccak(plain.encode()).hex()
    return "0x" + "".join(c.upper() if int(d, 16) >= 8 else c for c, d in zip(plain, digits, strict=False))


def write(message: Message) -> str:
    """The text that a wallet signs."""
    lines = [
        f"{message.scheme + '://' if message.scheme else ''}{message.domain}"
        " wants you to sign in with your Ethereum account:",
        message.address,
        "",
        *([message.statement] if message.statement else []),
        "",
        f"URI: {message.uri}",
        "Version: 1",
        f"Chain ID: {message.chain_id}",
        f"Nonce: {message.nonce}",
        f"Issued At: {rfc3339(message.issued_at_s)}",
    ]
    if message.expires_at_s is not None:
        lines.append(f"Expiration Time: {rfc3339(message.expires_at_s)}")
    if message.not_before_s is not None:
        lines.append(f"Not Before: {rfc3339(message.not_before_s)}")
    if message.request_id is not None:
        lines.append(f"Request ID: {message.request_id}")
    if message.resources:
        lines += ["Resources:", *(f"- {resource}" for resource in message.resources)]
    return "\n".join(lines)


def read(text: str) -> Message:
    """Read a message. Raises InvalidSignInMessage, which names the line that is wrong."""
    if len(text) > _LONGEST:
        raise _unreadable(f"it is longer than {_LONGEST} characters")
    at, found = 0, {}
    for name, pattern, optional in _PATTERNS:
        match = pattern.match(text, at)
        if match:
            at = match.end()
            found.update(match.groupdict())
        elif not optional:
            raise _unreadable(f"{name} is missing, malformed or out of its place")
    if at != len(text):
        raise _unreadable(f"line {text.count(chr(10), 0, at) + 1} goes on with something that doesn't belong there")
    if found["address"] != checksum(found["address"]):
        raise _unreadable(f"address must be in checksum form, {checksum(found['address'])}")
    resources = found.get("resources")
    return Message(
        domain=found["domain"],
        address=found["address"],
        uri=found["uri"],
        chain_id=int(found["chain_id"]),
        nonce=found["nonce"],
        issued_at_s=_time("Issued At", found["issued_at"]),
        scheme=found["scheme"],
        statement=found.get("statement"),
        expires_at_s=_time("Expiration Time", found["expires_at"]) if found.get("expires_at") else None,
        not_before_s=_time("Not Before", found["not_before"]) if found.get("not_before") else None,
        request_id=found.get("request_id"),
        resources=tuple(resources.split("\n- ")[1:]) if resources else (),
    )


def check(message: Message, *, domain: str, chain_id: int, now_s: float) -> None:
    """Raises SignInRefused when the message isn't meant for this server, this chain or this moment."""
    if message.domain.lower() != domain.lower():
        raise SignInRefused(reason=f"its domain is {message.domain}, and this server is {domain}", param="message")
    scheme, _, rest = message.uri.partition("://")
    if scheme.lower() not in ("http", "https") or re.split("[/?#]", rest)[0].lower() != domain.lower():
        raise SignInRefused(reason=f"its URI is {message.uri}, which isn't on {domain}", param="message")
    if message.scheme and message.scheme.lower() != scheme.lower():
        raise SignInRefused(reason=f"its scheme is {message.scheme}, and its URI's is {scheme}", param="message")
    if message.chain_id != chain_id:
        raise SignInRefused(
            reason=f"its chain id is {message.chain_id}, and this server's is {chain_id}", param="message"
        )
    if message.issued_at_s > now_s + SKEW_S:
        raise SignInRefused(reason=f"it is issued in the future, at {rfc3339(message.issued_at_s)}", param="message")
    if message.not_before_s is not None and message.not_before_s > now_s:
        raise SignInRefused(reason=f"it is not valid before {rfc3339(message.not_before_s)}", param="message")
    if message.expires_at_s is not None and message.expires_at_s <= now_s:
        raise SignInRefused(reason=f"it expired at {rfc3339(message.expires_at_s)}", param="message")


def digest(text: str) -> bytes:
    """What a wallet signs of a text (EIP-191)."""
    body = text.encode()
    return keccak(b"\x19Ethereum Signed Message:\n" + str(len(body)).encode() + body)


def signature_bytes(signature: str) -> bytes:
    """Raises SignInRefused for what isn't hexadecimal."""
    try:
        return bytes.fromhex(signature.removeprefix("0x"))
    except ValueError:
        raise SignInRefused(reason="the signature is not hexadecimal", param="signature") from None


def signer(text: str, signature: str) -> str:
    """The checksummed address whose key signed `text` by EIP-191. Raises SignInRefused when none can be recovered."""
    raw = signature_bytes(signature)
    if raw.endswith(UNDEPLOYED):
        raise SignInRefused(
            reason="its wallet is a contract that isn't deployed on this chain (ERC-6492); deploy it first, then sign in",
            param="signature",
        )
    if len(raw) != 65:
        raise SignInRefused(
            reason=f"the signature has {len(raw)} bytes instead of 65, and there is no contract at the address that "
            "could take it (ERC-1271)",
            param="signature",
        )
    v = raw[64] - 27 if raw[64] >= 27 else raw[64]
    try:
        key = coincurve.PublicKey.from_signature_and_message(raw[:64] + bytes([v]), digest(text), hasher=None)
    except Exception:  # noqa: BLE001 - coincurve raises a bare Exception for a point that isn't on the curve
        raise SignInRefused(reason="the signature is not a valid one", param="signature") from None
    return checksum("0x" + keccak(key.format(compressed=False)[1:])[12:].hex())


def _unreadable(reason: str) -> InvalidSignInMessage:
    return InvalidSignInMessage(reason=reason, param="message")


def _time(name: str, text: str) -> float:
    try:
        return datetime.fromisoformat(text.upper().replace("Z", "+00:00")).timestamp()
    except (ValueError, OverflowError):
        raise _unreadable(f"{name} {text} is not a time that exists") from None
