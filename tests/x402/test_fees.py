"""What becomes of payments whose transactions wait, because the chain asks more than they offer."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
from eth_account.signers.local import LocalAccount
from tests.x402.shop import ASKED, CHAT, USD, Shop, worker

from freehold.gateway.x402.settings import PaymentSettings

SOON = PaymentSettings(look_s=0.02, again_s=0.2, patience_s=120)
TINY_BLOCK = 50_000
"""Gas of a block that no payment fits in."""
GWEI = 10**9


async def until(happened: Callable[[], Awaitable[Any]], what: str) -> Any:
    """The first true answer; fails with `what` when there is none."""
    try:
        async with asyncio.timeout(120):
            while not (found := await happened()):  # noqa: ASYNC110 - the job polls
                await asyncio.sleep(0.05)
            return found
    except TimeoutError:
        raise AssertionError(f"it never came: {what}") from None


async def operator_of(shop: Shop) -> LocalAccount:
    """An operator with a key of its own, and coin for gas."""
    operator = await shop.wallet(usdc=0)
    await shop.anvil.rpc.call("anvil_setBalance", operator.address, hex(10**20))
    return operator


async def fees_rise(shop: Shop, base_gwei: int) -> None:
    """Blocks without the waiting transactions, after which the chain asks `base_gwei`. Nothing is mined from then on."""
    newest = await shop.anvil.rpc.call("eth_getBlockByNumber", "latest", False)
    await shop.anvil.rpc.call("evm_setBlockGasLimit", hex(TINY_BLOCK))
    for _ in range(2):
        await shop.anvil.rpc.call("anvil_setNextBlockBaseFeePerGas", hex(base_gwei * GWEI))
        await shop.anvil.mine()
    await shop.anvil.rpc.call("evm_setBlockGasLimit", newest["gasLimit"])


async def sent(shop: Shop) -> str | None:
    """The hash of the only payment's transaction that was sent last."""
    found: str | None = await shop.database.fetchval("select tx_hash from x402_payment")
    return found


async def transaction(shop: Shop, tx_hash: str | None) -> Any:
    return await shop.anvil.rpc.call("eth_getTransactionByHash", tx_hash)


async def count(shop: Shop, operator: LocalAccount, tag: str = "latest") -> int:
    return int(await shop.anvil.rpc.call("eth_getTransactionCount", operator.address, tag), 16)


async def test_a_payment_that_waits_for_too_low_a_fee_is_sent_in_its_own_place_for_more(empty_shop: Shop) -> None:
    shop, operator = empty_shop, await operator_of(empty_shop)
    async with worker(shop, settings=SOON, key=bytes(operator.key)):
        wallet = await shop.wallet()
        header = await shop.header(await shop.signed(wallet, 7_000))
        await shop.stop_mining()
        async with httpx.AsyncClient(base_url=shop.url, timeout=120) as http:
            call = asyncio.create_task(http.post(CHAT, json=dict(ASKED), headers=header))
            first = await transaction(shop, await until(lambda: sent(shop), "the transaction"))
            await fees_rise(shop, 500)

            async def replaced() -> Any:
                found = await transaction(shop, await sent(shop))
                return found if found is not None and found["hash"] != first["hash"] else None

            second = await until(replaced, "a second transaction")
            assert second["nonce"] == first["nonce"] and second["input"] == first["input"]
            for fee in ("maxFeePerGas", "maxPriorityFeePerGas"):
                assert int(second[fee], 16) * 10 >= int(first[fee], 16) * 11, fee
            assert int(second["maxFeePerGas"], 16) > 500 * GWEI
            assert await transaction(shop, first["hash"]) is None and await count(shop, operator, "pending") == 1
            shop.go_on_mining()
            answer = await call
        assert answer.status_code == 200, answer.text
        assert await count(shop, operator) == 1 and await shop.usdc_of(wallet.address) == 5 * USD - 7_000
        assert len(await shop.charges_of(wallet)) == 1
        await shop.close_books()


async def test_a_payment_that_waits_although_it_offers_enough_is_left_alone(empty_shop: Shop) -> None:
    """A chain that stands still asks no more by and by, so that fees don't grow for nothing."""
    shop, operator = empty_shop, await operator_of(empty_shop)
    async with worker(shop, settings=SOON, key=bytes(operator.key)):
        wallet = await shop.wallet()
        header = await shop.header(await shop.signed(wallet, 7_000))
        await shop.stop_mining()
        async with httpx.AsyncClient(base_url=shop.url, timeout=120) as http:
            call = asyncio.create_task(http.post(CHAT, json=dict(ASKED), headers=header))
            first = await until(lambda: sent(shop), "the transaction")
            for _ in range(3):  # it is asked again and again
                before = await shop.database.fetchval("select sent_at from x402_payment")

                async def looked(before: Any = before) -> bool:
                    return bool(await shop.database.fetchval("select sent_at from x402_payment") != before)

                await until(looked, "another look")
            assert await sent(shop) == first and await count(shop, operator, "pending") == 1
            shop.go_on_mining()
            assert (await call).status_code == 200
        assert await count(shop, operator) == 1


async def test_what_waits_for_a_payment_that_expired_keeps_no_later_payment_up(empty_shop: Shop) -> None:
    shop, operator = empty_shop, await operator_of(empty_shop)
    async with worker(shop, settings=SOON, key=bytes(operator.key)):
        wallets = [await shop.wallet(), await shop.wallet()]
        signed = await shop.signed(wallets[0], 7_000)
        header = await shop.header(signed)
        await shop.stop_mining()
        async with httpx.AsyncClient(base_url=shop.url, timeout=120) as http:
            call = asyncio.create_task(http.post(CHAT, json=dict(ASKED), headers=header))
            first = await transaction(shop, await until(lambda: sent(shop), "the transaction"))
            await shop.anvil.rpc.call("evm_setNextBlockTimestamp", signed.valid_before + 1)
            await fees_rise(shop, 500)

            async def withdrawn() -> Any:
                found = await transaction(shop, await sent(shop))
                return found if found is not None and found["hash"] != first["hash"] else None

            nothing = await until(withdrawn, "its withdrawal")
            assert (nothing["nonce"], nothing["input"]) == (first["nonce"], "0x")
            assert nothing["to"].lower() == operator.address.lower() and int(nothing["value"], 16) == 0
            shop.go_on_mining()
            assert (await call).status_code == 402
            later = await shop.header(await shop.signed(wallets[1], 7_000))
            assert (await http.post(CHAT, json=dict(ASKED), headers=later)).status_code == 200
        assert await count(shop, operator) == 2
        assert await shop.usdc_of(wallets[0].address) == 5 * USD and await shop.account_of(wallets[0]) is None
        states = await shop.database.fetch("select state from x402_payment order by position")
        assert [row["state"] for row in states] == ["lapsed", "credited"]
        await shop.close_books()
