"""Calls without an account: asked for a payment, paid by the SDK's own client, answered, charged."""

import base64
import json
from typing import Any

import httpx
from tests.x402.shop import ASKED, CHAT, USD, Shop


def told(header: str) -> dict[str, Any]:
    return dict(json.loads(base64.b64decode(header)))


async def test_a_call_without_credentials_is_told_what_to_pay(shop: Shop) -> None:
    async with httpx.AsyncClient(base_url=shop.url) as http:
        asked = await http.post(CHAT, json=dict(ASKED))
    assert asked.status_code == 402
    assert asked.json()["error"]["code"] == "payment_required"
    required = told(asked.headers["payment-required"])
    assert required["x402Version"] == 2
    (offer,) = required["accepts"]
    assert (offer["scheme"], offer["network"]) == ("exact", "eip155:402031")
    assert (offer["asset"], offer["payTo"]) == (shop.deployment.contracts["usdc"], shop.deployment.operator)


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
