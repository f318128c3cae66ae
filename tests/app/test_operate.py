"""The check of the books on the server's own machine."""

import asyncio
from pathlib import Path

import pytest

from freehold.allowance.books import DEPOSITED
from freehold.app.operate import books_check
from freehold.app.settings import Settings
from freehold.chain import deployments
from freehold.chain.deployments import CONTRACTS
from freehold.chain.model import DEV_CHAIN_ID, Deployment
from freehold.clock import SystemClock
from freehold.db import Database
from freehold.identity.identity import Identity
from freehold.identity.settings import IdentitySettings
from freehold.ledger.ledger import Ledger
from freehold.ledger.model import FOREVER_S, Source


@pytest.fixture
def deployment(tmp_path: Path) -> Path:
    """A deployment file."""
    contracts = {name: f"0x{number:040x}" for number, name in enumerate(CONTRACTS, 1)}
    file = tmp_path / "deployment.toml"
    deployments.save(file, Deployment(DEV_CHAIN_ID, contracts, "0x" + "00" * 19 + "99", 1, 2))
    return file


async def _prepaid_out_of_nothing(url: str) -> int:
    database = await Database.connect(url, max_size=2)
    clock = SystemClock()
    ledger = Ledger(database, clock=clock)
    identity = Identity(database, clock=clock, settings=IdentitySettings("127.0.0.1", DEV_CHAIN_ID))
    async with database.transaction() as conn:
        account_id = await ledger.create_account(conn)
        await identity.create_local_account(conn, account_id, "rich")
    await ledger.grant(account_id, Source.PREPAID, 7, "evt:invented", starts_at_s=0, expires_at_s=FOREVER_S)
    await database.close()
    return account_id


def test_credit_that_the_chain_does_not_back_is_found_where_a_deployment_is(
    database_url: str, deployment: Path
) -> None:
    account_id = asyncio.run(_prepaid_out_of_nothing(database_url))
    found = books_check(Settings(database_url=database_url, deployment=deployment))
    assert [(one.law, one.account_id, one.found) for one in found] == [(DEPOSITED, account_id, "7")]
    nowhere = Settings(database_url=database_url, data=deployment.parent / "nowhere")
    assert books_check(nowhere) == []  # the ledger alone is right
