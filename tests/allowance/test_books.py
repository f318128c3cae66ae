"""What was granted against what the chain grants: right books are silent, each planted difference is named."""

from tests.allowance.conftest import Office
from tests.allowance.test_allowance import ALICE, BOB, DIEM, TODAY, USD, spend

from freehold.allowance.books import DEPOSITED, STAKED
from freehold.chain.reader import LogReader
from freehold.clock import Day
from freehold.ledger.model import FOREVER_S, Source


async def found(office: Office) -> list[tuple[str, int | None, str, str]]:
    return [(one.law, one.account_id, one.expected, one.found) for one in await office.allowance.check()]


async def staked(office: Office) -> int:
    """Alice, with a stake and a deposit that were granted."""
    account = await office.register.open(ALICE)
    await office.emitter.allowance(ALICE, day=TODAY, today=DIEM, onward=2 * DIEM)
    await office.emitter.deposit(ALICE, amount=1_000_000)
    await office.confirm()
    return account


async def test_days_and_deposits_as_the_chain_grants_them_are_right(office: Office) -> None:
    account = await staked(office)
    await spend(office, account, USD // 2)
    await office.anvil.mine(at_s=Day(TODAY + 1).start_s)
    await office.confirm()
    assert await found(office) == []  # today isn't asked for yet
    await office.allowance.refresh(account)
    assert await office.granted(account) == {TODAY: USD, TODAY + 1: 2 * USD}
    assert await found(office) == []


async def test_a_day_that_was_raised_by_hand_is_named(office: Office) -> None:
    account = await staked(office)
    await office.ledger.raise_grant(account, TODAY, Source.ALLOWANCE, USD + 1, "by hand")
    assert await found(office) == [(STAKED, account, str(USD), str(USD + 1))]


async def test_a_past_day_that_was_raised_by_hand_is_named(office: Office) -> None:
    account = await staked(office)
    await office.ledger.raise_grant(account, TODAY, Source.ALLOWANCE, USD + 1, "by hand")
    await office.anvil.mine(at_s=Day(TODAY + 1).start_s)
    await office.confirm()
    assert await found(office) == [(STAKED, account, str(USD), str(USD + 1))]


async def test_a_day_that_was_taken_away_is_named(office: Office) -> None:
    account = await staked(office)
    grant = next(one for one in await office.ledger.grants(account, live_only=False) if one.source is Source.ALLOWANCE)
    await office.ledger.reverse(account, grant.external_id, USD - 5, "by hand")
    assert await found(office) == [(STAKED, account, str(USD), str(USD - 5))]


async def test_a_past_day_that_was_granted_less_than_it_began_with_is_named(office: Office) -> None:
    account = await staked(office)
    await office.anvil.mine(at_s=Day(TODAY + 1).start_s)
    await office.confirm()
    await office.allowance.refresh(account)
    await office.ledger.reverse(account, f"day:{TODAY + 1}:allowance:open", USD, "by hand")
    await office.anvil.mine(at_s=Day(TODAY + 2).start_s)
    await office.confirm()
    assert await found(office) == [(STAKED, account, str(2 * USD), str(USD))]


async def test_a_day_that_was_asked_for_and_never_granted_is_named(office: Office) -> None:
    account = await office.register.open(BOB)
    await office.confirm()
    await office.allowance.refresh(account)
    await office.ledger.grant(
        account, Source.PROMO, USD, "promo", starts_at_s=Day(TODAY).start_s, expires_at_s=FOREVER_S
    )
    assert await found(office) == []
    await office.emitter.allowance(BOB, day=TODAY, today=DIEM, onward=DIEM)
    await office.anvil.mine(office.emitter.deployment.confirmations)
    await LogReader(office.anvil.rpc, office.database, office.emitter.deployment).poll()
    assert await found(office) == []  # it was read, and nobody has followed yet
    await office.database.execute("update allowance_progress set seq = (select max(seq) from chain_change)")
    assert await found(office) == [(STAKED, account, str(USD), "0")]


async def test_prepaid_credit_that_nobody_deposited_is_named(office: Office) -> None:
    account = await staked(office)
    await office.ledger.grant(
        account, Source.PREPAID, 7, "evt:invented", starts_at_s=Day(TODAY).start_s, expires_at_s=FOREVER_S
    )
    assert await found(office) == [(DEPOSITED, account, "0", "7")]


async def test_a_deposit_that_was_credited_with_another_amount_is_named(office: Office) -> None:
    account = await staked(office)
    await office.database.execute("update chain_event set amount = amount + 1 where kind = 'Deposited'")
    assert await found(office) == [(DEPOSITED, account, str(USD + 1_000), str(USD))]


async def test_a_deposit_that_was_never_credited_is_named(office: Office) -> None:
    account = await staked(office)
    await office.emitter.deposit(ALICE, amount=3)
    await office.anvil.mine(office.emitter.deployment.confirmations)
    await LogReader(office.anvil.rpc, office.database, office.emitter.deployment).poll()
    await office.database.execute("update allowance_progress set seq = (select max(seq) from chain_change)")
    assert await found(office) == [(DEPOSITED, account, "3000", "0")]


async def test_a_reorg_that_was_followed_leaves_no_difference(office: Office) -> None:
    account = await office.register.open(ALICE)
    await office.anvil.mine(3)
    await office.emitter.allowance(ALICE, day=TODAY, today=DIEM, onward=DIEM)
    await office.confirm()
    await spend(office, account, USD // 3)
    await office.anvil.reorg(3)
    await office.confirm()
    assert await found(office) == []
    await office.anvil.mine(at_s=Day(TODAY + 1).start_s)
    await office.confirm()
    await office.allowance.refresh(account)
    assert await found(office) == []
