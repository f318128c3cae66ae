"""What becomes of a payment when something breaks between its claim, the chain and its credit."""

import asyncio
from dataclasses import replace

import httpx
import pytest
from tests.x402.shop import ASKED, CHAT, USD, Shop, worker

from freehold.db import Database
from freehold.gateway.x402.facilitator import Landing
from freehold.gateway.x402.model import Authorization
from freehold.gateway.x402.settings import PaymentSettings
from freehold.gateway.x402.store import Claim, Store
from freehold.ledger.model import Source

PURPOSE = bytes(32)


async def claimed(shop: Shop, signed: Authorization) -> Claim:
    """As a worker leaves it that dies right after the claim."""
    terms = await shop.worker.payments.terms()
    return await Store(shop.database).claim(terms, signed, PURPOSE, None, await shop.anvil.head())


async def until(shop: Shop, claim: Claim, state: str) -> None:
    async with asyncio.timeout(60):
        while await shop.state_of(claim.key) != state:  # noqa: ASYNC110 - the job polls
            await asyncio.sleep(0.05)


async def sent_payments(shop: Shop) -> int:
    """How many were handed to the chain."""
    return int(await shop.database.fetchval("select count(*) from x402_payment where tx_hash is not null"))


async def test_a_worker_that_dies_before_sending_is_made_up_for(empty_shop: Shop) -> None:
    async with worker(empty_shop, jobs=False):
        wallet = await empty_shop.wallet()
        claim = await claimed(empty_shop, await empty_shop.signed(wallet, 7_000))
        empty_shop.workers.pop()
        async with worker(empty_shop):
            await until(empty_shop, claim, "credited")
            assert await empty_shop.credit_of(wallet) == 7_000_000
            assert await empty_shop.usdc_of(wallet.address) == 5 * USD - 7_000
            await empty_shop.close_books()


async def test_a_crash_between_settlement_and_credit_credits_once(empty_shop: Shop) -> None:
    async with worker(empty_shop, jobs=False):
        wallet = await empty_shop.wallet()
        signed = await empty_shop.signed(wallet, 7_000)
        claim = await claimed(empty_shop, signed)
        await empty_shop.carry_out(signed, sender="operator")  # mined, and nobody wrote down its transaction
        empty_shop.workers.pop()
        async with worker(empty_shop), worker(empty_shop):
            await until(empty_shop, claim, "credited")
            account_id = await empty_shop.account_of(wallet)
            assert account_id is not None
            (grant,) = await empty_shop.worker.ledger.grants(account_id)
            assert (grant.source, grant.amount_nano) == (Source.PREPAID, 7_000_000)
            await empty_shop.close_books()


async def test_an_authorization_that_somebody_else_submits_is_credited_once(shop: Shop) -> None:
    wallet = await shop.wallet()
    signed = await shop.signed(wallet, 7_000)
    header = await shop.header(signed)
    async with httpx.AsyncClient(base_url=shop.url, timeout=60) as http:
        await shop.stop_mining()
        call = asyncio.create_task(http.post(CHAT, json=dict(ASKED), headers=header))
        async with asyncio.timeout(60):
            while not await shop.database.fetchval("select count(*) from x402_payment"):  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        shop.go_on_mining()
        answers = await asyncio.gather(call, shop.carry_out_if_it_can(signed))
    assert answers[0].status_code == 200, answers[0].text
    assert await shop.usdc_of(wallet.address) == 5 * USD - 7_000
    await shop.close_books()


async def test_of_two_payments_from_money_for_one_only_one_is_served(shop: Shop) -> None:
    wallet = await shop.wallet(usdc=5_000)
    first, second = await shop.signed(wallet, 5_000), await shop.signed(wallet, 5_000)
    bodies = [{**ASKED, "max_tokens": 10}, {**ASKED, "max_tokens": 11}]
    await shop.stop_mining()
    async with httpx.AsyncClient(base_url=shop.url, timeout=60) as http:
        calls = [
            asyncio.create_task(http.post(CHAT, json=body, headers=await shop.header(signed)))
            for body, signed in zip(bodies, (first, second), strict=True)
        ]
        async with asyncio.timeout(60):  # until both are sent, or one is refused because the other was
            while await sent_payments(shop) < 2 and not any(call.done() for call in calls):  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        shop.go_on_mining()
        answers = await asyncio.gather(*calls)
    assert sorted(answer.status_code for answer in answers) == [200, 402]
    refused = next(answer for answer in answers if answer.status_code == 402)
    assert "USDC says: ERC20: transfer amount exceeds balance" in refused.json()["error"]["message"]
    assert len(await shop.charges_of(wallet)) == 1
    await shop.close_books()


async def test_a_payer_whose_money_leaves_before_it_is_carried_out_is_served_nothing(shop: Shop) -> None:
    wallet = await shop.wallet(usdc=5_000)
    header = await shop.header(await shop.signed(wallet, 5_000))
    await shop.stop_mining()
    async with httpx.AsyncClient(base_url=shop.url, timeout=60) as http:
        call = asyncio.create_task(http.post(CHAT, json=dict(ASKED), headers=header))
        async with asyncio.timeout(60):
            while await sent_payments(shop) < 1:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        await shop.outbid(wallet.address, 5_000)
        shop.go_on_mining()
        answer = await call
    assert answer.status_code == 402
    assert "USDC says: ERC20: transfer amount exceeds balance" in answer.json()["error"]["message"]
    assert await shop.charges_of(wallet) == []
    await shop.close_books()


async def test_a_payment_that_isnt_mined_in_time_is_pending_and_taken_later(empty_shop: Shop) -> None:
    async with worker(empty_shop, settings=PaymentSettings(look_s=0.02, patience_s=0.3)):
        wallet = await empty_shop.wallet()
        header = await empty_shop.header(await empty_shop.signed(wallet, 7_000))
        await empty_shop.stop_mining()
        async with httpx.AsyncClient(base_url=empty_shop.url, timeout=60) as http:
            pending = await http.post(CHAT, json=dict(ASKED), headers=header)
            assert pending.status_code == 503 and pending.json()["error"]["code"] == "payment_pending"
            assert int(pending.headers["retry-after"]) > 0
            empty_shop.go_on_mining()
            answer = pending
            async with asyncio.timeout(60):
                while answer.status_code == 503:
                    answer = await http.post(CHAT, json=dict(ASKED), headers=header)
        assert answer.status_code == 200
        assert len(await empty_shop.charges_of(wallet)) == 1


async def test_a_payment_that_expires_before_it_is_carried_out_lapses(empty_shop: Shop) -> None:
    async with worker(empty_shop, jobs=False):
        wallet = await empty_shop.wallet()
        claim = await claimed(empty_shop, await empty_shop.signed(wallet, 7_000))
        await empty_shop.stop_mining()
        await empty_shop.anvil.mine(4, at_s=claim.signed.valid_before + 1)
        empty_shop.go_on_mining()
        empty_shop.workers.pop()
        async with worker(empty_shop):
            await until(empty_shop, claim, "lapsed")
            assert await empty_shop.account_of(wallet) is None
            assert await empty_shop.usdc_of(wallet.address) == 5 * USD


async def test_a_credited_payment_that_a_reorg_took_is_carried_out_again(shop: Shop) -> None:
    wallet = await shop.wallet()
    claim = await claimed(shop, await shop.signed(wallet, 7_000))
    await until(shop, claim, "credited")
    await shop.stop_mining()
    landed = await shop.database.fetchval("select landed_block from x402_payment")
    await shop.anvil.reorg(await shop.anvil.head() - landed + 1)
    assert await shop.usdc_of(wallet.address) == 5 * USD
    shop.go_on_mining()
    async with asyncio.timeout(60):
        while await shop.usdc_of(wallet.address) == 5 * USD:  # noqa: ASYNC110 - the job polls
            await asyncio.sleep(0.05)
    assert await shop.credit_of(wallet) == 7_000_000
    await shop.close_books()


async def test_a_credited_payment_that_a_reorg_took_for_good_is_taken_back(shop: Shop) -> None:
    wallet = await shop.wallet()
    claim = await claimed(shop, await shop.signed(wallet, 7_000))
    await until(shop, claim, "credited")
    await shop.stop_mining()
    landed = await shop.database.fetchval("select landed_block from x402_payment")
    await shop.anvil.reorg(await shop.anvil.head() - landed + 1)
    await shop.anvil.mine(4, at_s=claim.signed.valid_before + 1)
    shop.go_on_mining()
    await until(shop, claim, "reversed")
    assert await shop.credit_of(wallet) == 0
    await shop.close_books()


async def test_what_was_answered_long_ago_doesnt_run_again(shop: Shop) -> None:
    wallet = await shop.wallet()
    header = await shop.header(await shop.signed(wallet, 7_000))
    async with httpx.AsyncClient(base_url=shop.url, timeout=60) as http:
        assert (await http.post(CHAT, json=dict(ASKED), headers=header)).status_code == 200
        await shop.database.execute("update x402_payment set credited_at = credited_at - interval '13 hours'")
        await shop.database.execute("delete from ledger.idempotency")
        again = await http.post(CHAT, json=dict(ASKED), headers=header)
    assert again.status_code == 409 and "more than 12 hours ago" in again.json()["error"]["message"]
    assert len(await shop.charges_of(wallet)) == 1


async def test_one_transfer_doesnt_count_for_two_authorizations(shop: Shop) -> None:
    """Two nonces used in one transaction: only the one right before the transfer to us has paid."""
    wallet = await shop.wallet()
    paid = await shop.signed(wallet, 7_000)
    sent = await shop.carry_out(paid)
    receipt = await shop.anvil.rpc.call("eth_getTransactionReceipt", sent)
    facilitator = shop.worker.payments._chain
    assert isinstance(facilitator._landing(paid, receipt), Landing)
    other = replace(paid, nonce=bytes(32))
    used, transfer = receipt["logs"]
    twice = {**used, "topics": [*used["topics"][:2], "0x" + bytes(32).hex()]}
    logs = [{**twice, "logIndex": "0x0"}, {**used, "logIndex": "0x1"}, {**transfer, "logIndex": "0x2"}]
    assert facilitator._landing(paid, {**receipt, "logs": logs}) is not None
    assert facilitator._landing(other, {**receipt, "logs": logs}) is None


async def test_an_account_check_finds_a_payment_that_was_not_credited_right(shop: Shop) -> None:
    wallet = await shop.wallet()
    claim = await claimed(shop, await shop.signed(wallet, 7_000))
    await until(shop, claim, "credited")
    await shop.close_books()
    await shop.database.execute("update x402_payment set amount = amount + 1")
    (found,) = await shop.worker.allowance.check()
    assert (found.expected, found.found) == ("7001000", "7000000")


@pytest.mark.parametrize("least", [1_000, 250_000])
async def test_the_operator_sets_the_least_that_is_asked(empty_shop: Shop, database: Database, least: int) -> None:
    async with (
        worker(empty_shop, settings=PaymentSettings(least_units=least), jobs=False),
        httpx.AsyncClient(base_url=empty_shop.url) as http,
    ):
        asked = await http.post(CHAT, json={**ASKED, "max_tokens": 1})
    assert f"{least / USD:g} USDC" in asked.json()["error"]["message"]


async def test_an_operators_own_key_carries_payments_of_two_workers_at_once(empty_shop: Shop) -> None:
    operator = await empty_shop.wallet(usdc=0)
    await empty_shop.anvil.rpc.call("anvil_setBalance", operator.address, hex(10**18))
    key = bytes(operator.key)
    async with worker(empty_shop, key=key) as first, worker(empty_shop, key=key, jobs=False) as second:
        wallets = [await empty_shop.wallet() for _ in range(6)]
        headers = [await empty_shop.header(await empty_shop.signed(wallet, 5_000)) for wallet in wallets]
        async with httpx.AsyncClient(timeout=60) as http:
            answers = await asyncio.gather(
                *(
                    http.post(f"{(first, second)[number % 2].url}{CHAT}", json=dict(ASKED), headers=header)
                    for number, header in enumerate(headers)
                )
            )
        assert [answer.status_code for answer in answers] == [200] * 6, answers[0].text
        count = await empty_shop.anvil.rpc.call("eth_getTransactionCount", operator.address, "latest")
        assert int(count, 16) == 6
        await empty_shop.close_books()


async def test_an_operator_who_cant_pay_the_gas_serves_nothing(empty_shop: Shop) -> None:
    operator = await empty_shop.wallet(usdc=0)
    async with worker(empty_shop, key=bytes(operator.key), jobs=False):
        wallet = await empty_shop.wallet()
        header = await empty_shop.header(await empty_shop.signed(wallet, 5_000))
        async with httpx.AsyncClient(base_url=empty_shop.url, timeout=60) as http:
            answer = await http.post(CHAT, json=dict(ASKED), headers=header)
        assert answer.status_code == 503 and answer.json()["error"]["code"] == "payments_unavailable"
        assert operator.address not in answer.text
        assert await empty_shop.credit_of(wallet) == 0 and await empty_shop.charges_of(wallet) == []


async def test_a_payment_that_was_refused_is_credited_when_its_transfer_comes_all_the_same(shop: Shop) -> None:
    wallet = await shop.wallet()
    signed = await shop.signed(wallet, 7_000)
    await shop.stop_mining()
    claim = await claimed(shop, signed)
    await Store(shop.database).give_up(claim.key)
    await shop.worker.payments.follow()
    assert await shop.state_of(claim.key) == "open"
    shop.go_on_mining()
    await shop.carry_out(signed)
    await until(shop, claim, "credited")
    assert await shop.credit_of(wallet) == 7_000_000
    await shop.close_books()


async def test_a_payment_waits_for_its_confirmations(shop: Shop) -> None:
    wallet = await shop.wallet()
    header = await shop.header(await shop.signed(wallet, 5_000))
    await shop.stop_mining()
    async with httpx.AsyncClient(base_url=shop.url, timeout=60) as http:
        call = asyncio.create_task(http.post(CHAT, json=dict(ASKED), headers=header))
        async with asyncio.timeout(60):
            while not await shop.database.fetchval("select count(*) from x402_payment where tx_hash is not null"):  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        for _ in range(shop.deployment.confirmations):
            await shop.anvil.mine()
            await shop.worker.payments.follow()
            assert await shop.account_of(wallet) is None
        assert await shop.usdc_of(wallet.address) == 5 * USD - 5_000 and not call.done()
        await shop.anvil.mine()
        assert (await call).status_code == 200
    shop.go_on_mining()
