"""Adding credit by x402: to the caller's account, or to the payer's own."""

import asyncio

import httpx
from tests.x402.shop import USD, Shop

from freehold.db import Connection
from freehold.ledger.model import KeyLimits

PATH = "/v1/account/top-up"


async def keyed(shop: Shop, name: str = "somebody") -> tuple[int, dict[str, str]]:
    """A local account with a key."""
    made = shop.worker

    async def work(conn: Connection) -> tuple[int, str]:
        account_id = await made.ledger.create_account(conn)
        await made.identity.create_local_account(conn, account_id, name)
        key, secret = await made.identity.create_key(conn, account_id, name="k")
        await made.ledger.put_key(conn, KeyLimits(account_id, key.id, key.version))
        return account_id, secret

    account_id, secret = await made.database.transact(work)
    return account_id, {"authorization": f"Bearer {secret}"}


async def test_a_key_tops_up_its_account_with_anybodys_wallet(shop: Shop) -> None:
    wallet = await shop.wallet()
    account_id, key = await keyed(shop)
    async with shop.paying(wallet) as http:
        answer = await http.post(PATH, json={"amount": "1.5"}, headers=key)
    assert answer.status_code == 200, answer.text
    said = answer.json()
    assert (said["account_id"], said["payer"], said["amount"]) == (account_id, wallet.address, "1.50")
    assert said["available_nano"] == 1_500_000_000
    assert answer.headers["payment-response"]
    assert await shop.usdc_of(wallet.address) == 5 * USD - 1_500_000
    assert await shop.account_of(wallet) is None
    await shop.close_books()


async def test_without_credentials_the_payers_own_account_is_topped_up(shop: Shop) -> None:
    wallet = await shop.wallet()
    async with shop.paying(wallet) as http:
        answer = await http.post(PATH, json={"amount": "2"})
    assert answer.status_code == 200, answer.text
    assert answer.json()["account_id"] == await shop.account_of(wallet)
    assert await shop.credit_of(wallet) == 2_000_000_000


async def test_a_top_up_sent_again_and_at_once_credits_once(shop: Shop) -> None:
    wallet = await shop.wallet()
    payment = await shop.payment(wallet, PATH, {"amount": "1"})
    async with httpx.AsyncClient(base_url=shop.url, timeout=60) as http:
        answers = await asyncio.gather(*(http.post(PATH, json={"amount": "1"}, headers=payment) for _ in range(20)))
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.text for answer in answers}) == 1
    assert await shop.credit_of(wallet) == 1_000_000_000
    await shop.close_books()


async def test_a_top_up_doesnt_move_to_another_account(shop: Shop) -> None:
    wallet = await shop.wallet()
    payment = await shop.payment(wallet, PATH, {"amount": "1"})
    _, key = await keyed(shop)
    async with httpx.AsyncClient(base_url=shop.url, timeout=60) as http:
        first = await http.post(PATH, json={"amount": "1"}, headers=payment)
        other = await http.post(PATH, json={"amount": "1"}, headers={**payment, **key})
        more = await http.post(PATH, json={"amount": "2"}, headers=payment)
    assert (first.status_code, other.status_code, more.status_code) == (200, 409, 409)


async def test_an_amount_that_usdc_cant_have_is_refused(shop: Shop) -> None:
    async with httpx.AsyncClient(base_url=shop.url, timeout=60) as http:
        for amount in ("0", "0.0000001"):
            answer = await http.post(PATH, json={"amount": amount})
            assert answer.status_code == 400 and answer.json()["error"]["param"] == "amount"
