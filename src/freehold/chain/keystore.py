"""Keystore files: a wallet's key, encrypted with a password (Web3 Secret Storage, version 3), by eth-account.

eth-account takes a while to load, and raises Python's recursion limit; so it is loaded at the first use, and the limit
put back.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

from eth_utils.address import is_address, to_checksum_address

from freehold.chain.problems import WalletRefused


def eth_account() -> Any:
    """The library, with `messages`."""
    limit = sys.getrecursionlimit()
    import eth_account
    import eth_account.messages

    sys.setrecursionlimit(limit)
    return eth_account


def new_secret() -> bytes:
    """A new key, from the system's randomness."""
    return bytes(eth_account().Account.create().key)


def secret_of(text: str) -> bytes:
    """A key of 64 hexadecimal digits. Raises WalletRefused, which repeats nothing of it."""
    try:
        secret = bytes.fromhex(text.strip().removeprefix("0x"))
        if len(secret) == 32:
            eth_account().Account.from_key(secret)
            return secret
    except ValueError:
        pass
    raise WalletRefused(reason="That is no private key: 64 hexadecimal digits.") from None


def write(path: Path, secret: bytes, password: str) -> str:
    """Encrypt a key into a new file, readable by its owner only; the address. Raises WalletRefused, OSError."""
    if not password:
        raise WalletRefused(reason="An empty password protects nothing; choose one.")
    kept = eth_account().Account.encrypt(secret, password)
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise WalletRefused(reason=f"{path} exists already; a wallet is never overwritten.") from None
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        json.dump(kept, file)
    return address_in(path)


def address_in(path: Path) -> str:
    """The address that a keystore file names, without its password. Raises WalletRefused."""
    address = _load(path).get("address")
    if not isinstance(address, str) or not is_address(address):
        raise WalletRefused(reason=f"{path} names no address.")
    return str(to_checksum_address(address))


def open_secret(path: Path, password: str) -> bytes:
    """Decrypt a keystore file: 32 bytes. Raises WalletRefused for a wrong password or a broken file."""
    kept = _load(path)
    try:
        secret = bytes(eth_account().Account.decrypt(kept, password))
    except ValueError:
        raise WalletRefused(reason=f"The password doesn't open {path}.") from None
    except (KeyError, TypeError, NotImplementedError):
        raise WalletRefused(reason=f"{path} is not a keystore file of version 3.") from None
    return secret


def _load(path: Path) -> dict[str, Any]:
    try:
        kept = json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise WalletRefused(reason=f"The keystore file {path} can't be read: {error.strerror}.") from None
    except ValueError:
        kept = None
    if not isinstance(kept, dict) or "crypto" not in {name.lower() for name in kept}:
        raise WalletRefused(reason=f"{path} is not a keystore file of version 3.")
    return kept
