"""The EIP-712 messages that the contracts read, as digests to sign."""

from tests.contracts.evm import Contract, typed_digest

PERMIT = "Permit(address owner,address spender,uint256 value,uint256 nonce,uint256 deadline)"
_FIELDS = "(address from,address to,uint256 value,uint256 validAfter,uint256 validBefore,bytes32 nonce)"
TRANSFER = "TransferWithAuthorization" + _FIELDS
RECEIVE = "ReceiveWithAuthorization" + _FIELDS
CANCEL = "CancelAuthorization(address authorizer,bytes32 nonce)"


def permit(token: Contract, owner: str, spender: str, amount: int, deadline_s: int) -> bytes:
    return typed_digest(token.DOMAIN_SEPARATOR(), PERMIT, owner, spender, amount, token.nonces(owner), deadline_s)


def authorization(
    token: Contract, kind: str, sender: str, to: str, amount: int, after_s: int, before_s: int, nonce: bytes
) -> bytes:
    """`kind`: TRANSFER or RECEIVE."""
    return typed_digest(token.DOMAIN_SEPARATOR(), kind, sender, to, amount, after_s, before_s, nonce)


def cancellation(token: Contract, authorizer: str, nonce: bytes) -> bytes:
    return typed_digest(token.DOMAIN_SEPARATOR(), CANCEL, authorizer, nonce)
