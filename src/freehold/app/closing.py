"""Receipts and their publishing, put together for a deployment."""

from collections.abc import Awaitable, Callable

from freehold.app.plan import Plan
from freehold.chain.contracts import Contracts
from freehold.chain.keywallet import KeyWallet
from freehold.chain.model import DEV_CHAIN_ID, Deployment
from freehold.chain.rpc import Rpc
from freehold.chain.wallet import DevWallet, Wallet
from freehold.db import Database
from freehold.identity.identity import Identity
from freehold.receipts.model import Domain
from freehold.receipts.publishing import Publisher
from freehold.receipts.receipts import Receipts
from freehold.receipts.signing import ReceiptKey


def receipts_of(database: Database, deployment: Deployment, identity: Identity, *, key: str | None = None) -> Receipts:
    """What makes receipts for the deployment's book; without `key` (hexadecimal digits) they aren't signed."""

    async def address_of(account_id: int) -> str:
        return (await identity.account(account_id)).address

    domain = Domain(deployment.chain_id, deployment.contracts["book"], deployment.operator)
    signer = ReceiptKey(bytes.fromhex(key)) if key else None
    return Receipts(database, domain, address_of=address_of, key=signer)


def publisher_of(
    plan: Plan, rpc: Rpc, deployment: Deployment, receipts: Receipts
) -> Callable[[], Awaitable[Publisher]]:
    """What publishes closed days; off the dev chain without an operator's keystore it only looks whether they are."""
    watches = plan.operator_secret is None and deployment.chain_id != DEV_CHAIN_ID

    async def opened() -> Publisher:
        wallet = None if watches else await operators_wallet(plan, rpc)
        return Publisher(receipts, Contracts.of(deployment).book, wallet, rpc=rpc)

    return opened


async def operators_wallet(plan: Plan, rpc: Rpc) -> Wallet:
    """The operator's wallet: of its keystore, or the dev chain's."""
    secret = bytes.fromhex(plan.operator_secret) if plan.operator_secret else None
    return KeyWallet(rpc, secret, name="the operator") if secret else await DevWallet.open(rpc, "operator")
