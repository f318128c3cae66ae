"""The operator's key for receipts: secp256k1, over EIP-712 digests. Signing is deterministic (RFC 6979)."""

import coincurve
from eth_utils.address import to_checksum_address
from eth_utils.crypto import keccak


class ReceiptKey:
    """The secret half; it is never shown."""

    def __init__(self, secret: bytes) -> None:
        """`secret`: 32 bytes. Raises ValueError for one that is no key."""
        self._key = coincurve.PrivateKey(secret)
        self.address = _address_of(self._key.public_key)

    def __repr__(self) -> str:
        return f"ReceiptKey({self.address})"

    def sign(self, digest: bytes) -> bytes:
        """65 bytes: r, s, and 27 or 28."""
        made = self._key.sign_recoverable(digest, hasher=None)
        return made[:64] + bytes([27 + made[64]])


def signer_of(digest: bytes, signature: bytes) -> str | None:
    """The address whose key signed; None for a signature that nobody can have made."""
    if len(signature) != 65 or signature[64] not in (27, 28):
        return None
    try:
        public = coincurve.PublicKey.from_signature_and_message(
            signature[:64] + bytes([signature[64] - 27]), digest, hasher=None
        )
    except Exception:  # noqa: BLE001 - the library raises bare exceptions for what is no signature
        return None
    return _address_of(public)


def _address_of(public: coincurve.PublicKey) -> str:
    return str(to_checksum_address(keccak(public.format(compressed=False)[1:])[12:]))
