"""A call that comes again with its `Idempotency-Key`: it gets the first call's answer, and nothing goes upstream.

An answer is kept sealed (AES-256-GCM), bound to its account and key, so that the database alone gives it to nobody. What
is kept is what the client got, but for the cost, which is read from the charge when it is given again.
"""

import hashlib
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING

from Crypto.Cipher import AES

from freehold.gateway import headers
from freehold.gateway.asgi import Exchange
from freehold.gateway.problems import AnswerNotKept
from freehold.gateway.sse import DONE, comment, frame
from freehold.ledger.problems import AnswerStored

if TYPE_CHECKING:
    from freehold.gateway.door import Door

LARGEST_BYTES = 1024 * 1024
"""A longer answer is not kept."""

END = frame(DONE)

INLINE_BYTES = 64 * 1024
"""A longer answer doesn't travel with its settlement, which would hold up those of others, but after it."""

KEY_BYTES = 32
_NONCE_BYTES = 12
_TAG_BYTES = 16
_STREAM = b"s"
"""A stream that ends as chats do."""
_MARKED = b"m"
"""A stream with an end of its own: four bytes say how long that is."""
_WHOLE = b"w"

REPLAYED: headers.Headers = [(b"idempotent-replayed", b"true")]


class Answers:
    """Seals answers, and opens them."""

    def __init__(self, key: bytes | None = None) -> None:
        """`key`: KEY_BYTES that all workers share; else one that lives as long as this."""
        self._key = secrets.token_bytes(KEY_BYTES) if key is None else key
        if len(self._key) != KEY_BYTES:
            raise ValueError(f"the key of stored answers has {KEY_BYTES} bytes")

    def seal(self, account_id: int, idempotency_key: str, answer: bytes) -> bytes:
        nonce = secrets.token_bytes(_NONCE_BYTES)
        cipher = AES.new(self._key, AES.MODE_GCM, nonce=nonce, mac_len=_TAG_BYTES)
        cipher.update(_bound_to(account_id, idempotency_key))
        sealed, tag = cipher.encrypt_and_digest(answer)
        return nonce + bytes(tag) + bytes(sealed)

    def open(self, account_id: int, idempotency_key: str, sealed: bytes) -> bytes | None:
        """None when it was sealed by another key, for another call, or was changed."""
        nonce, tag = sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES : _NONCE_BYTES + _TAG_BYTES]
        if len(tag) < _TAG_BYTES:
            return None
        cipher = AES.new(self._key, AES.MODE_GCM, nonce=nonce, mac_len=_TAG_BYTES)
        cipher.update(_bound_to(account_id, idempotency_key))
        try:
            return bytes(cipher.decrypt_and_verify(sealed[_NONCE_BYTES + _TAG_BYTES :], tag))
        except ValueError:
            return None


@dataclass(frozen=True, slots=True)
class Repeatable:
    """What tells a repeat from another call."""

    key: str
    digest: bytes

    @classmethod
    def of(cls, exchange: Exchange, body: bytes) -> "Repeatable | None":
        key = exchange.header(b"idempotency-key")
        if key is None:
            return None
        return cls(key, hashlib.sha256(exchange.path.encode() + b"\0" + body).digest())


class Kept:
    """Collects what a call answers, up to LARGEST_BYTES."""

    def __init__(self, *, stream: bool) -> None:
        self.marker = b""
        """What says that a stream is whole."""
        self._stream = stream
        self._parts: list[bytes] = []
        self._size = 0

    def add(self, part: bytes) -> None:
        self._size += len(part)
        if self._size <= LARGEST_BYTES:
            self._parts.append(part)
        else:
            self._parts.clear()

    def answer(self) -> bytes | None:
        """None when it is too long."""
        if self._size > LARGEST_BYTES:
            return None
        if not self._stream:
            return b"".join([_WHOLE, *self._parts])
        if self.marker == END:
            return b"".join([_STREAM, *self._parts])
        return b"".join([_MARKED, len(self.marker).to_bytes(4, "big"), self.marker, *self._parts])


async def again(
    door: "Door", exchange: Exchange, account_id: int, repeatable: Repeatable, stored: AnswerStored
) -> None:
    """Give a stored answer again, a stream as a stream. Raises AnswerNotKept."""
    answer = None if stored.answer is None else door.answers.open(account_id, repeatable.key, stored.answer)
    if not answer:
        raise AnswerNotKept(request_id=f"req_{stored.request_id.hex}")
    charge = await door.ledger.charge(account_id, stored.request_id)
    exchange.id = stored.request_id
    exchange.own = [(name, exchange.request_id.encode()) for name, _ in exchange.own]
    patience_s = door.settings.send_patience_s
    body = answer[1:]
    if answer[:1] == _WHOLE:
        await exchange.respond(200, body, [*REPLAYED, *headers.of_charge(charge)], patience_s=patience_s)
        return
    marker = END
    if answer[:1] == _MARKED:
        size = int.from_bytes(body[:4], "big")
        marker, body = body[4 : 4 + size], body[4 + size :]
    exchange.start(200, [*headers.STREAM, *REPLAYED, *headers.of_day(charge.day)])
    for part in body.split(b"\n\n")[:-1]:
        await exchange.write(part + b"\n\n", patience_s=patience_s)
    await exchange.end(comment(headers.note(charge)) + marker, patience_s=patience_s)


def _bound_to(account_id: int, idempotency_key: str) -> bytes:
    return f"{account_id}:{idempotency_key}".encode()
