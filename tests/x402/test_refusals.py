"""Payments that aren't taken: each is refused in words, and takes, credits and serves nothing."""

import asyncio
import base64
import json
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import pytest
from eth_account import Account as Wallets
from eth_account.signers.local import LocalAccount
from tests.x402.shop import ASKED, CHAT, USD, Shop

from freehold.gateway.x402.model import Authorization

SOMEBODY = "0x00000000000000000000000000000000000000AA"

Make = Callable[[Shop, LocalAccount], Awaitable[dict[str, str]]]


def tampered(**changes: Any) -> Make:
    """A payment with other fields; those of the offer that it accepts begin with an underscore."""

    async def make(shop: Shop, wallet: LocalAccount) -> dict[str, str]:
        accepted = {name[1:]: value for name, value in changes.items() if name.startswith("_")}
        fields = {name: value for name, value in changes.items() if not name.startswith("_")}
        return await shop.header(await shop.signed(wallet, fields.pop("units", 5_000), **fields), **accepted)

    return make


async def of_another_key(shop: Shop, wallet: LocalAccount) -> dict[str, str]:
    return await shop.header(await shop.signed(wallet, 5_000, key=Wallets.create()))


async def of_a_used_nonce(shop: Shop, wallet: LocalAccount) -> dict[str, str]:
    signed = await shop.signed(wallet, 5_000)
    await shop.carry_out(signed)
    return await shop.header(signed)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (tampered(_network="eip155:8453"), "on the network eip155:8453, and eip155:402031 was asked"),
        (tampered(_asset=SOMEBODY), "its asset is"),
        (tampered(pay_to=SOMEBODY), "it pays 0x"),
        (tampered(units=999), r"it is 0\.000999 USDC, less than the 0\.001 that are asked"),
        (tampered(units=6 * USD), r"has 5 USDC, and it is for 6"),
        (tampered(valid_before=1_000_000_000), "it has expired"),
        (tampered(valid_before=2**200), "valid for longer than 24 hours"),
        (tampered(valid_after=4_000_000_000, valid_before=4_000_000_100), "it is not valid before 4000000000"),
        (tampered(domain_name="Another Coin"), "its signature is not that of"),
        (of_another_key, "its signature is not that of"),
        (of_a_used_nonce, "its nonce was used or cancelled on the chain before"),
    ],
)
async def test_a_payment_that_isnt_what_was_asked_is_refused_in_words(shop: Shop, make: Make, said: str) -> None:
    wallet = await shop.wallet()
    header = await make(shop, wallet)
    before = await shop.treasury()
    async with httpx.AsyncClient(base_url=shop.url, timeout=60) as http:
        answer = await http.post(CHAT, json=dict(ASKED), headers=header)
    assert answer.status_code == 402, answer.text
    error = answer.json()["error"]
    assert error["code"] == "payment_refused"
    with pytest.raises(AssertionError, match=said):
        raise AssertionError(error["message"])
    again = json.loads(base64.b64decode(answer.headers["payment-required"]))
    assert again["error"] and again["accepts"]
    response = json.loads(base64.b64decode(answer.headers["payment-response"]))
    assert response["success"] is False and response["errorReason"]
    assert await shop.treasury() == before and await shop.account_of(wallet) is None
    assert await shop.database.fetchval("select count(*) from x402_payment") == 0


@pytest.mark.parametrize(
    ("header", "said"),
    [
        ("!", "it is not JSON in base64"),
        (base64.b64encode(b"[]").decode(), "x402Version is missing"),
        (base64.b64encode(b'{"x402Version": 1}').decode(), "its x402Version is 1, and this server speaks 2"),
        (base64.b64encode(b'{"x402Version": 2, "accepted": {}, "payload": {}}').decode(), "scheme is missing"),
        (
            base64.b64encode(
                b'{"x402Version": 2, "accepted": {"scheme": "exact"}, "payload": {"permit2Authorization": {}}}'
            ).decode(),
            "its payload has no ERC-3009 authorization",
        ),
        ("A" * 17_000, "it is longer than"),
    ],
)
async def test_a_header_that_cant_be_read_is_a_400_that_says_why(shop: Shop, header: str, said: str) -> None:
    async with httpx.AsyncClient(base_url=shop.url, timeout=60) as http:
        answer = await http.post(CHAT, json=dict(ASKED), headers={"PAYMENT-SIGNATURE": header})
    assert answer.status_code == 400 and said in answer.json()["error"]["message"]


async def test_two_authorizations_with_one_nonce_are_one_payment(shop: Shop) -> None:
    wallet = await shop.wallet()
    first = await shop.signed(wallet, 5_000)
    second = await shop.signed(wallet, 6_000, nonce=first.nonce)
    async with httpx.AsyncClient(base_url=shop.url, timeout=60) as http:
        headers = [await shop.header(each) for each in (first, second)]
        answers = await asyncio.gather(*(http.post(CHAT, json=dict(ASKED), headers=each) for each in headers))
    assert sorted(answer.status_code for answer in answers) == [200, 402]
    assert len(await shop.charges_of(wallet)) == 1
    assert 5 * USD - await shop.usdc_of(wallet.address) in (5_000, 6_000)
    await shop.close_books()


async def test_what_pays_somebody_else_with_the_same_nonce_credits_nothing(shop: Shop) -> None:
    wallet = await shop.wallet()
    to_us = await shop.signed(wallet, 5_000)
    elsewhere: Authorization = await shop.signed(wallet, 5_000, nonce=to_us.nonce, pay_to=SOMEBODY)
    terms = await shop.worker.payments.terms()
    claim = await shop.worker.payments._store.claim(terms, to_us, bytes(32), None, await shop.anvil.head())
    await shop.carry_out(elsewhere)
    while (await shop.state_of(claim.key)) == "open":  # noqa: ASYNC110 - the job polls
        await asyncio.sleep(0.05)
    assert await shop.state_of(claim.key) == "lapsed" and await shop.account_of(wallet) is None
