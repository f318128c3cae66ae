"""On a chain of one's own, deployed to by keys alone: credit after 12 confirmations, receipts, and two operators side by side.

Over HTTP, against two `freehold up`, each with a database, a book and a keystore of its own.
"""

import asyncio
import copy
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from tests.chain.foreign import CONFIRMATIONS
from tests.scenarios.land import ONE, Land, settled

from freehold.app.first import remarks
from freehold.app.settings import Settings
from freehold.chain import verbs
from freehold.chain.contracts import Contracts
from freehold.chain.wallet import read
from freehold.cli.root import cli
from freehold.clock import DAY_S, Day
from freehold.receipts import tree, wire
from freehold.receipts.model import receipt_hash

pytestmark = pytest.mark.timeout(900)
NANO = 10**9


@pytest.fixture(scope="module")
async def land(
    tmp_path_factory: pytest.TempPathFactory, postgres_url: str, migrated_template: str
) -> AsyncIterator[Land]:
    async with settled(tmp_path_factory.mktemp("land"), postgres_url, migrated_template) as made:
        yield made


async def test_a_stake_is_credit_after_12_confirmations_and_not_before_and_pays_a_call(land: Land) -> None:
    staker = await land.staker(4 * ONE)
    customer = await land.first.sign_in(staker)
    await land.confirmed()
    async with land.mines:
        staked = await verbs.stake_diem(staker, land.first.deployment, 4 * ONE)
        block = await land.anvil.head()
        assert block == staked.block_number
        await land.anvil.rpc.call("anvil_mine", hex(CONFIRMATIONS - 1))
        await land.first.confirmed(block - 1)
        await asyncio.sleep(1.5)  # three polls of the reader, in which nothing may happen
        assert (await land.first.get("/v1/status"))["confirmed"] == block - 1
        assert await customer.allowance_nano() == 0
        status, refused = await customer.chat("too early")
        assert (status, refused["error"]["code"]) == (402, "insufficient_credit")
        await land.anvil.mine()
    await land.first.confirmed(block)
    left = Day.of(staked.at_s).end_s - staked.at_s
    await customer.has(4 * NANO * left // DAY_S)
    status, answer = await customer.chat("hello")
    assert (status, answer["choices"][0]["message"]["content"]) == (200, "You said: hello")
    (row,) = (await land.first.get("/v1/account/usage", customer.key))["data"]
    assert [leg["source"] for leg in row["legs"]] == ["allowance"] and row["cost_nano"] > 0


async def test_until_midnight_the_operator_that_a_stake_leaves_grants_it_and_the_other_one_after(land: Land) -> None:
    """Of 4 DIEM at the first operator, 3 are redirected to the second one, and the day after back again."""
    first, second = land.gateways
    staker = await land.staker(4 * ONE)
    staked = await verbs.stake_diem(staker, first.deployment, 4 * ONE)
    here, there = await first.sign_in(staker), await second.sign_in(staker)
    await land.confirmed()
    day = Day.of(staked.at_s)
    of_the_day = 4 * NANO * (day.end_s - staked.at_s) // DAY_S
    await here.has(of_the_day)

    async def move(amount: int, come: str, go: str) -> None:
        await verbs.redirect(
            staker,
            first.deployment,
            amount,
            beneficiary=staker.address,
            operator=come,
            new_beneficiary=None,
            new_operator=go,
        )
        await land.confirmed()

    await move(3 * ONE, first.deployment.operator, second.deployment.operator)
    assert (await here.allowance_nano(), await there.allowance_nano()) == (of_the_day, 0)
    assert (await there.chat("not yet"))[0] == 402
    next_day = await land.next_day()
    await here.has(1 * NANO)
    await there.has(3 * NANO)
    assert (await there.chat("now"))[0] == 200
    await move(3 * ONE, second.deployment.operator, first.deployment.operator)
    assert (await here.allowance_nano(), await there.allowance_nano()) == (1 * NANO, 3 * NANO)
    last_day = await land.next_day()
    await here.has(4 * NANO)
    assert await there.allowance_nano() == 0
    assert await first.granted(here.account_id) == {
        day.number: of_the_day,
        next_day.number: 1 * NANO,
        last_day.number: 4 * NANO,
    }
    assert {day: nano for day, nano in (await second.granted(there.account_id)).items() if nano} == {
        next_day.number: 3 * NANO
    }
    for gateway in land.gateways:
        checked = await asyncio.to_thread(gateway.server.cli, "books", "check", "--json", "--data", gateway.server.data)
        unpublished = [one for one in json.loads(checked.stdout)["differences"] if "publish" not in one["law"]]
        assert unpublished == []


async def test_the_start_says_what_an_operator_has_to_mend(land: Land, tmp_path: Path) -> None:
    node, deployment = land.anvil.rpc.node, land.first.deployment
    right, secret = Settings(data=land.first.server.data), land.operators[0].secret()
    assert await remarks(node, deployment, right, secret) == []
    (said,) = await remarks(node, deployment, right, None)
    assert said.startswith("Closed days won't be published: name the keystore")
    (said,) = await remarks(node, deployment, right, land.operators[1].secret())
    assert f"is {land.operators[1].address}, and the book's publisher {land.operators[0].address}" in said
    (said,) = await remarks(node, deployment, Settings(data=tmp_path), secret)
    assert "receipts won't verify" in said
    (said,) = await remarks(node, replace(deployment, operator=land.holder.address), right, secret)
    assert "isn't registered" in said
    assert "Closed days won't be published" not in land.first.server.said()


async def test_anybody_sees_both_operators_and_what_they_promised_without_a_wallet(land: Land) -> None:
    words = ("governance", "--json", "--rpc-url", land.anvil.rpc.node, "--data", str(land.first.server.data))
    ran = await asyncio.to_thread(land.first.server.cli, *words)
    assert ran.returncode == 0, ran.stderr
    told = json.loads(ran.stdout)
    assert {row["address"]: (row["committed"], row["url"]) for row in told["operators"]} == {
        land.operators[0].address: ("40000", "https://first.example"),
        land.operators[1].address: ("10000", "https://second.example"),
    }
    assert [change["state"] for change in told["changes"]] == ["done", "done"]


async def test_yesterdays_receipt_verifies_with_only_a_node_and_nothing_else_does(land: Land, tmp_path: Path) -> None:
    gateway = land.first
    staker = await land.staker(2 * ONE)
    customer = await gateway.sign_in(staker)
    await verbs.stake_diem(staker, gateway.deployment, 2 * ONE)
    await land.confirmed()
    day = await land.today()
    for text in ("one", "two", "three"):
        assert (await customer.chat(text))[0] == 200
    rows = (await gateway.get("/v1/account/usage", customer.key))["data"]

    async def receipt(number: int) -> dict[str, Any]:
        found = await gateway.get(f"/v1/account/receipts/{rows[number]['request_id']}", customer.key)
        return dict(found["signed"])

    async def verified(signed: Any) -> tuple[int, str]:
        """By a stranger, who has the file, the deployment file and a node."""
        file = tmp_path / "receipt.json"
        file.write_text(json.dumps(signed), "utf-8")
        words = ("verify", str(file), "--rpc", land.anvil.rpc.node, "--deployment", str(gateway.file))
        env = {"XDG_CONFIG_HOME": str(tmp_path), "NO_COLOR": "1"}
        ran = await asyncio.to_thread(CliRunner().invoke, cli, words, env=env)
        return ran.exit_code, ran.output

    assert "wasn't closed" in (await verified(await receipt(0)))[1]

    coin = await land.anvil.rpc.call("eth_getBalance", land.operators[0].address, "latest")
    await land.anvil.rpc.call("anvil_setBalance", land.operators[0].address, "0x0")  # nothing left to publish with
    await land.next_day()
    await gateway.closed(day, published=False)
    assert await gateway.metric("freehold_days_unpublished") >= 1
    code, said = await verified(await receipt(0))
    assert code == 1 and f"{day} isn't published on the chain" in said

    await land.anvil.rpc.call("anvil_setBalance", land.operators[0].address, coin)
    await gateway.closed(day, published=True)
    assert await gateway.metric("freehold_days_unpublished") == await gateway.metric("freehold_days_wrong") == 0
    signed = await receipt(0)
    code, said = await verified(signed)
    assert code == 0 and "in the root of that day on the chain" in said, said

    forged = copy.deepcopy(signed)
    forged["receipt"]["cost_nano"] += 1
    code, said = await verified(forged)
    assert code == 1 and "was changed" in said

    domain, read_back = wire.read(signed)
    leaf = tree.leaf(receipt_hash(read_back.receipt, domain))
    sibling = read_back.siblings[0]
    inner = tree.root_of(leaf, [sibling])
    book = Contracts.of(gateway.deployment).book
    rest = list(read_back.siblings[1:])
    assert tree.root_of(inner, rest) == read_back.root  # it does lead to the root
    assert not await read(land.anvil.rpc, book, "verify", day.number, inner, rest)
    shown = copy.deepcopy(signed)
    shown["hash"] = "0x" + inner.hex()
    shown["proof"]["siblings"] = shown["proof"]["siblings"][1:]
    code, said = await verified(shown)
    assert code == 1 and "was changed" in said
    assert await read(land.anvil.rpc, book, "nextDay") == day.number + 1
