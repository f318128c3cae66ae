"""Calls without an account: asked for a payment, paid by the SDK's own clients, answered, charged."""

import asyncio
import base64
import json
from collections.abc import Mapping
from typing import Any

import httpx
from eth_account.messages import encode_defunct
from tests.x402.shop import ASKED, CHAT, USD, Shop, worker
from x402.http.x402_http_client import x402HTTPClient, x402HTTPClientSync
from x402_openai import AsyncX402OpenAI, X402OpenAI

from freehold.clock import DAY_S
from freehold.ledger.model import Source
from freehold.money import cost_nano_up
from x402 import x402ClientSync

STREAMED = {**ASKED, "stream": True, "stream_options": {"include_usage": True}}


def told(header: str) -> dict[str, Any]:
    return dict(json.loads(base64.b64decode(header)))


async def asked_for(shop: Shop, body: Mapping[str, Any], path: str = CHAT, **headers: str) -> dict[str, Any]:
    """The one offer of a 402."""
    async with httpx.AsyncClient(base_url=shop.url, timeout=60) as http:
        answer = await http.post(path, json=dict(body), headers=headers)
    assert answer.status_code == 402, answer.text
    assert answer.json()["error"]["code"] == "payment_required"
    (offer,) = told(answer.headers["payment-required"])["accepts"]
    return dict(offer)


async def test_a_call_without_credentials_is_told_what_to_pay(shop: Shop) -> None:
    offer = await asked_for(shop, ASKED)
    assert (offer["scheme"], offer["network"]) == ("exact", "eip155:402031")
    assert (offer["asset"], offer["payTo"]) == (shop.deployment.contracts["usdc"], shop.deployment.operator)
    assert offer["extra"] == {"name": "USD Coin", "version": "2"}
    assert await asked_for(shop, ASKED, authorization="Bearer sk-somebody-elses") == offer


async def test_the_price_asked_is_the_worst_case_rounded_up_to_a_unit_of_usdc(shop: Shop) -> None:
    book = shop.worker.payments
    small = {**ASKED, "max_tokens": 1}
    assert (await asked_for(shop, small))["amount"] == str(book.settings.least_units)
    large = {"model": "scripted-exact", "max_tokens": 99_999, "messages": [{"role": "user", "content": "x"}]}
    rates = (await _prices(shop))["scripted-exact"]
    exact = cost_nano_up([(99_999, rates["output"])])
    asked = int((await asked_for(shop, large))["amount"])
    assert rates["input"] == 0 and asked == -(-exact // 1_000) > book.settings.least_units


async def _prices(shop: Shop) -> dict[str, dict[str, int]]:
    rows = await shop.database.fetch("select model, unit, nano_per_million as nano from price_rates")
    found: dict[str, dict[str, int]] = {}
    for row in rows:
        found.setdefault(row["model"], {})[row["unit"]] = row["nano"]
    return found


async def test_a_key_that_is_wrong_is_not_asked_to_pay(shop: Shop) -> None:
    async with httpx.AsyncClient(base_url=shop.url) as http:
        answer = await http.post(CHAT, json=dict(ASKED), headers={"authorization": "Bearer fh_wrong"})
    assert answer.status_code == 401 and "payment-required" not in answer.headers


async def test_who_may_pay_without_a_key_may_see_the_models(shop: Shop) -> None:
    async with httpx.AsyncClient(base_url=shop.url) as http:
        listed = (await http.get("/v1/models")).json()["data"]
    assert "scripted-echo" in {each["id"] for each in listed}


async def test_nobody_pays_for_a_request_that_would_be_refused(shop: Shop) -> None:
    async with httpx.AsyncClient(base_url=shop.url) as http:
        unknown = await http.post(CHAT, json={**ASKED, "model": "nobody's"})
        broken = await http.post(CHAT, json={**ASKED, "max_tokens": "many"})
    assert (unknown.status_code, broken.status_code) == (404, 400)


async def test_the_sdks_client_pays_for_a_call_and_gets_its_answer(shop: Shop) -> None:
    wallet = await shop.wallet()
    async with shop.paying(wallet) as http:
        answer = await http.post(CHAT, json=dict(ASKED))
    assert answer.status_code == 200, answer.text
    assert answer.json()["choices"][0]["message"]["content"]
    response = told(answer.headers["payment-response"])
    assert response["success"] and response["payer"] == wallet.address
    paid = 5 * USD - await shop.usdc_of(wallet.address)
    assert paid == await shop.treasury() == int(response["amount"]) > 0
    (charge,) = await shop.charges_of(wallet)
    assert charge.cost_nano > 0 and await shop.credit_of(wallet) == paid * 1_000 - charge.cost_nano
    await shop.close_books()


async def test_a_stream_is_paid_for_too(shop: Shop) -> None:
    wallet = await shop.wallet()
    async with shop.paying(wallet) as http, http.stream("POST", CHAT, json=STREAMED) as answer:
        text = "".join([part async for part in answer.aiter_text()])
    assert answer.status_code == 200 and "data: [DONE]" in text and "freehold cost=" in text
    assert told(answer.headers["payment-response"])["success"]
    assert len(await shop.charges_of(wallet)) == 1
    await shop.close_books()


async def test_embeddings_are_paid_for_too(shop: Shop) -> None:
    wallet = await shop.wallet()
    async with shop.paying(wallet) as http:
        answer = await http.post("/v1/embeddings", json={"model": "scripted-embedding", "input": ["a", "b"]})
    assert answer.status_code == 200 and len(answer.json()["data"]) == 2
    assert len(await shop.charges_of(wallet)) == 1


class Asynchronous(x402HTTPClient):
    """The SDK's own, called as x402-openai 0.3.0 calls it: without the URL, which newer SDKs want to know."""

    async def handle_402_response(self, headers: dict[str, str], body: bytes | None, request_url: str = "") -> Any:
        return await super().handle_402_response(headers, body, request_url)


class Synchronous(x402HTTPClientSync):
    def handle_402_response(self, headers: dict[str, str], body: bytes | None, request_url: str = "") -> Any:
        return super().handle_402_response(headers, body, request_url)


async def test_x402_openai_pays_by_itself(shop: Shop) -> None:
    wallet = await shop.wallet()
    client = AsyncX402OpenAI(x402_client=Asynchronous(shop.payer(wallet)), base_url=f"{shop.url}/v1")
    messages: Any = [{"role": "user", "content": "Say something."}]
    whole = await client.chat.completions.create(model="scripted-echo", messages=messages, max_tokens=64)
    assert whole.choices[0].message.content
    stream = await client.chat.completions.create(model="scripted-echo", messages=messages, max_tokens=64, stream=True)
    assert "".join([part.choices[0].delta.content or "" async for part in stream if part.choices])
    await client.close()
    assert len(await shop.charges_of(wallet)) == 2


async def test_x402_openais_synchronous_client_pays_too(shop: Shop) -> None:
    wallet = await shop.wallet()

    def ask() -> str | None:
        with X402OpenAI(
            x402_client=Synchronous(shop.payer(wallet, x402ClientSync())), base_url=f"{shop.url}/v1"
        ) as client:
            made = client.chat.completions.create(
                model="scripted-echo", max_tokens=64, messages=[{"role": "user", "content": "x"}]
            )
        return made.choices[0].message.content

    assert await asyncio.to_thread(ask)
    assert len(await shop.charges_of(wallet)) == 1


async def test_a_payment_again_gets_the_same_answer_and_costs_nothing(shop: Shop) -> None:
    wallet = await shop.wallet()
    payment = await shop.payment(wallet)
    async with httpx.AsyncClient(base_url=shop.url, timeout=60) as http:
        first = await http.post(CHAT, json=dict(ASKED), headers=payment)
        left = await shop.credit_of(wallet)
        again = await http.post(CHAT, json=dict(ASKED), headers=payment)
    assert first.status_code == again.status_code == 200
    assert first.content == again.content and again.headers["idempotent-replayed"] == "true"
    assert first.headers["payment-response"] == again.headers["payment-response"]
    assert await shop.credit_of(wallet) == left and len(await shop.charges_of(wallet)) == 1


async def test_a_payment_for_another_request_is_refused(shop: Shop) -> None:
    wallet = await shop.wallet()
    payment = await shop.payment(wallet)
    async with httpx.AsyncClient(base_url=shop.url, timeout=60) as http:
        assert (await http.post(CHAT, json=dict(ASKED), headers=payment)).status_code == 200
        other = await http.post(CHAT, json={**ASKED, "max_tokens": 63}, headers=payment)
        top_up = await http.post("/v1/account/top-up", json={"amount": "0.001"}, headers=payment)
    assert other.status_code == top_up.status_code == 409
    assert other.json()["error"]["code"] == "idempotency_conflict" and other.headers["x-should-retry"] == "false"
    assert len(await shop.charges_of(wallet)) == 1


async def test_a_payment_sent_a_hundred_times_at_once_to_two_workers_admits_one_request(shop: Shop) -> None:
    wallet = await shop.wallet()
    payment = await shop.payment(wallet)
    async with (
        worker(shop, jobs=False),
        httpx.AsyncClient(timeout=120, limits=httpx.Limits(max_connections=100)) as http,
    ):
        urls = [f"{each.url}{CHAT}" for each in shop.workers]
        answers = await asyncio.gather(
            *(http.post(urls[number % 2], json=dict(ASKED), headers=payment) for number in range(100))
        )
        shop.workers.pop()
    served = [answer for answer in answers if answer.status_code == 200]
    others = {answer.json()["error"]["code"] for answer in answers if answer.status_code != 200}
    assert served and others <= {"idempotency_in_progress"}
    assert len({answer.content for answer in served}) == 1
    assert len(await shop.charges_of(wallet)) == 1
    paid = 5 * USD - await shop.usdc_of(wallet.address)
    account_id = await shop.account_of(wallet)
    assert account_id is not None
    (grant,) = await shop.worker.ledger.grants(account_id)
    assert (grant.source, grant.amount_nano) == (Source.PREPAID, paid * 1_000)
    await shop.close_books()


async def test_an_upstream_that_fails_leaves_what_was_paid_as_credit(shop: Shop) -> None:
    wallet = await shop.wallet()
    failing = {**ASKED, "metadata": {"freehold_script": {"status": 500}}}
    payment = await shop.payment(wallet, body=failing)
    async with httpx.AsyncClient(base_url=shop.url, timeout=60) as http:
        failed = await http.post(CHAT, json=failing, headers=payment)
    assert failed.status_code == 502
    assert told(failed.headers["payment-response"])["success"]
    paid = 5 * USD - await shop.usdc_of(wallet.address)
    assert await shop.credit_of(wallet) == paid * 1_000 > 0 and await shop.charges_of(wallet) == []


async def test_what_is_left_is_spent_with_a_key_after_signing_in(shop: Shop) -> None:
    wallet = await shop.wallet()
    async with shop.paying(wallet) as http:
        assert (await http.post(CHAT, json=dict(ASKED))).status_code == 200
    async with httpx.AsyncClient(base_url=shop.url, timeout=60) as http:
        asked = (await http.post("/v1/auth/nonce", json={"address": wallet.address})).json()
        signature = wallet.sign_message(encode_defunct(text=asked["message"])).signature.hex()
        signed_in = (
            await http.post("/v1/auth/wallet", json={"message": asked["message"], "signature": signature})
        ).json()
        session = {"authorization": f"Bearer {signed_in['token']}"}
        key = (await http.post("/v1/account/keys", json={"name": "k"}, headers=session)).json()["secret"]
        call = await http.post(CHAT, json={**ASKED, "max_tokens": 8}, headers={"authorization": f"Bearer {key}"})
        usage = (await http.get("/v1/account/usage", headers=session)).json()["data"]
    assert not signed_in["created"] and signed_in["account_id"] == await shop.account_of(wallet)
    assert call.status_code == 200, call.text
    assert [row["key_name"] for row in usage] == ["k", "x402"]


async def test_a_chain_whose_time_runs_ahead_is_paid_on_all_the_same(shop: Shop) -> None:
    newest = await shop.anvil.rpc.call("eth_getBlockByNumber", "latest", False)
    ahead_s = int(newest["timestamp"], 16) + 3 * DAY_S
    await shop.stop_mining()
    await shop.anvil.mine(3, at_s=ahead_s)
    shop.go_on_mining()
    while (await shop.worker.ledger.time()).at_s < ahead_s:  # noqa: ASYNC110 - the reader polls
        await asyncio.sleep(0.05)
    assert (await asked_for(shop, ASKED))["maxTimeoutSeconds"] > 3 * DAY_S
    wallet = await shop.wallet()
    async with shop.paying(wallet) as http:
        assert (await http.post(CHAT, json=dict(ASKED))).status_code == 200


async def test_without_x402_a_call_needs_a_key(shop: Shop) -> None:
    async with worker(shop, takes=False, jobs=False) as other, httpx.AsyncClient(base_url=other.url) as http:
        answer = await http.post(CHAT, json=dict(ASKED))
        models = await http.get("/v1/models")
        top_up = await http.post("/v1/account/top-up", json={"amount": "1"})
        shop.workers.pop()
    assert answer.status_code == models.status_code == top_up.status_code == 401
    assert "payment-required" not in answer.headers


async def test_a_wallet_that_is_a_contract_pays_with_its_owners_signature(shop: Shop) -> None:
    owner = await shop.wallet(usdc=0)
    contract = await shop.contract_wallet(owner.address, usdc=USD)
    header = await shop.header(await shop.signed(owner, 5_000, payer=contract))
    async with httpx.AsyncClient(base_url=shop.url, timeout=60) as http:
        answer = await http.post(CHAT, json=dict(ASKED), headers=header)
    assert answer.status_code == 200, answer.text
    assert await shop.usdc_of(contract) == USD - 5_000
    account = await shop.worker.identity.account_of_address(contract)
    assert account is not None
    await shop.close_books()
