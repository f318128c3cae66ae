"""Every API can be paid for, plain and streamed, and is refused in its own words."""

import asyncio
import base64
import json
from typing import Any

import httpx
import pytest
from tests.gateway.shapes import ALL, CHATS, MESSAGES, RESPONSES, Spoken
from tests.x402.shop import USD, Shop, worker

MODEL = "scripted-echo"
EMBEDDINGS = Spoken("embeddings", "/v1/embeddings", "")
SPOKEN = {spoken.name: spoken for spoken in (CHATS, *ALL)}


def payment_of(answer: httpx.Response) -> dict[str, Any]:
    """What became of the payment that a request brought."""
    return dict(json.loads(base64.b64decode(answer.headers["payment-response"])))


def code_of(answer: httpx.Response, spoken: Spoken) -> str:
    """The code of a refusal, whose body must be what the API's own clients read."""
    told = answer.json()
    if spoken is MESSAGES:
        assert set(told) == {"type", "error", "request_id"} and told["type"] == "error", told
        kinds = {400: "invalid_request_error", 402: "billing_error", 409: "invalid_request_error"}
        assert told["error"]["type"] == kinds[answer.status_code]
        assert answer.headers["request-id"] == told["request_id"]
    else:
        assert set(told) == {"error"} and set(told["error"]) == {"message", "type", "code", "param"}, told
    assert told["error"]["message"].endswith(".")
    return str(told["error"]["code"])


@pytest.mark.parametrize("name", SPOKEN)
async def test_each_api_is_paid_for_plain_and_streamed(shop: Shop, name: str) -> None:
    spoken = SPOKEN[name]
    wallet = await shop.wallet()
    plain, streamed = spoken.body(MODEL, max_tokens=16), spoken.body(MODEL, max_tokens=16, stream=True)
    if spoken.limit != "max_tokens":
        for body in (plain, streamed):
            body[spoken.limit] = body.pop("max_tokens")
    async with httpx.AsyncClient(base_url=shop.url, timeout=120) as http:
        asked = await http.post(spoken.path, json=plain)
        assert asked.status_code == 402 and code_of(asked, spoken) == "payment_required"
        assert asked.headers["payment-required"] and asked.headers["x-should-retry"] == "false"
    async with shop.paying(wallet) as http:
        whole = await http.post(spoken.path, json=plain)
        assert whole.status_code == 200, whole.text
        assert spoken.said(whole.json()) == "You said: hello there"
        async with http.stream("POST", spoken.path, json=streamed) as stream:
            text = "".join([part async for part in stream.aiter_text()])
    assert (stream.status_code, stream.headers["content-type"].split(";")[0]) == (200, "text/event-stream"), text
    assert "there" in text and ": freehold cost=" in text
    assert text.rstrip().endswith('data: {"type":"message_stop"}' if spoken is MESSAGES else "data: [DONE]")
    paid = 0
    for answer in (whole, stream):
        response = payment_of(answer)
        assert response["success"] and response["payer"] == wallet.address
        paid += int(response["amount"])
    charges = await shop.charges_of(wallet)
    assert len(charges) == 2 and not any(charge.estimated for charge in charges)
    assert paid == 5 * USD - await shop.usdc_of(wallet.address)
    assert await shop.credit_of(wallet) == paid * 1_000 - sum(charge.cost_nano for charge in charges)
    await shop.close_books()


async def test_a_payment_that_is_refused_is_refused_in_each_apis_own_shape(shop: Shop) -> None:
    poor = await shop.wallet(usdc=0)
    header = await shop.header(await shop.signed(poor, 50_000))
    for spoken in (*SPOKEN.values(), EMBEDDINGS):
        body = {"model": "scripted-embedding", "input": "x"} if spoken is EMBEDDINGS else spoken.body(MODEL)
        async with httpx.AsyncClient(base_url=shop.url, timeout=120) as http:
            refused = await http.post(spoken.path, json=body, headers=header)
            unread = await http.post(spoken.path, json=body, headers={"PAYMENT-SIGNATURE": "!"})
        assert refused.status_code == 402 and code_of(refused, spoken) == "payment_refused"
        assert not payment_of(refused)["success"] and refused.headers["payment-required"]
        assert unread.status_code == 400 and code_of(unread, spoken) == "invalid_request"
    assert await shop.charges_of(poor) == []


async def test_a_payment_for_one_api_doesnt_pay_for_the_same_body_at_another(shop: Shop) -> None:
    wallet = await shop.wallet()
    body = {"model": MODEL, "messages": [{"role": "user", "content": "x"}], "max_tokens": 8}
    payment = await shop.payment(wallet, CHATS.path, body)
    async with httpx.AsyncClient(base_url=shop.url, timeout=120) as http:
        first = await http.post(CHATS.path, json=body, headers=payment)
        other = await http.post(MESSAGES.path, json=body, headers=payment)
    assert (first.status_code, other.status_code) == (200, 409), other.text
    assert other.json()["type"] == "error"
    assert len(await shop.charges_of(wallet)) == 1


@pytest.mark.parametrize(("spoken", "stream"), [(MESSAGES, True), (RESPONSES, True), (RESPONSES, False)])
async def test_a_payment_sent_a_hundred_times_at_once_admits_one_request_of_any_api(
    shop: Shop, spoken: Spoken, stream: bool
) -> None:
    wallet = await shop.wallet()
    body = spoken.body(MODEL, stream=stream)
    payment = await shop.payment(wallet, spoken.path, body)
    async with (
        worker(shop, jobs=False),
        httpx.AsyncClient(timeout=120, limits=httpx.Limits(max_connections=100)) as http,
    ):
        urls = [f"{each.url}{spoken.path}" for each in shop.workers]
        answers = await asyncio.gather(
            *(http.post(urls[number % 2], json=body, headers=payment) for number in range(100))
        )
        forwarded = sum(len(each.scripted.seen) for each in shop.workers)
        shop.workers.pop()
    served = [answer for answer in answers if answer.status_code == 200]
    assert served and len({answer.content for answer in served}) == 1
    others = {code_of(answer, spoken) for answer in answers if answer.status_code != 200}
    assert others <= {"idempotency_in_progress"}
    assert forwarded == 1 and len(await shop.charges_of(wallet)) == 1
    account_id = await shop.account_of(wallet)
    assert account_id is not None
    assert len(await shop.worker.ledger.grants(account_id)) == 1
    await shop.close_books()
