"""Moving stakes by saying who shall have how much: the moves reach it exactly, and make and lose nothing."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.chain.lab import START_S, USDC, Anvil

from freehold.chain.allocation import REST, Move, Seat, carry_out, look, moves_to, plan
from freehold.chain.contracts import Contracts
from freehold.chain.deploy import deploy_dev
from freehold.chain.dev import advance_day, fund
from freehold.chain.governance import committed_call, execute, operator_call, propose
from freehold.chain.problems import Reverted
from freehold.chain.verbs import mint, stake_diem, stake_hold
from freehold.chain.wallet import DevWallet, addresses, read
from freehold.clock import Day
from freehold.problems import Conflict, InvalidRequest

ONE = 10**18
HERE, THERE = "0x" + "aa" * 20, "0x" + "bb" * 20
ANN, BEN, CAT, DAN = (Seat(HERE, f"0x{n:040x}") for n in range(1, 5))
seats = st.sampled_from([ANN, BEN, CAT, DAN, Seat(THERE, ANN.beneficiary)])
amounts = st.integers(0, 20)


def after(now: dict[Seat, int], moves: list[Move]) -> dict[Seat, int]:
    held = dict(now)
    for move in moves:
        assert 0 < move.amount <= held[move.source]
        assert move.source != move.to
        held[move.source] -= move.amount
        held[move.to] = held.get(move.to, 0) + move.amount
    return held


@given(
    st.dictionaries(seats, st.integers(1, 20)), st.dictionaries(seats, st.one_of(amounts, st.just(REST)), min_size=1)
)
def test_targets_are_reached_exactly_or_refused_for_a_reason(now: dict[Seat, int], targets: dict[Seat, int]) -> None:
    staked, named = sum(now.values()), sum(amount for amount in targets.values() if amount != REST)
    rests = [seat for seat, amount in targets.items() if amount == REST]
    unnamed = sum(amount for seat, amount in now.items() if seat not in targets)
    too_much = named > staked
    left_over = not rests and named < staked - unnamed
    try:
        moves = moves_to(now, targets)
    except InvalidRequest:
        assert too_much or left_over or len(rests) > 1
        return
    assert not (too_much or left_over or len(rests) > 1)
    held = after(now, moves)
    assert sum(held.values()) == staked
    for seat, amount in targets.items():
        assert held.get(seat, 0) == (staked - named if amount == REST else amount)
    if rests:
        assert all(not amount for seat, amount in held.items() if seat not in targets)


def test_what_a_target_lacks_comes_from_the_largest_that_is_not_named() -> None:
    assert moves_to({ANN: 3, BEN: 7}, {CAT: 2}) == [Move(2, BEN, CAT)]
    assert moves_to({ANN: 3, BEN: 7}, {ANN: 1, CAT: 2}) == [Move(2, ANN, CAT)]
    assert moves_to({ANN: 3, BEN: 7}, {CAT: REST}) == [Move(3, ANN, CAT), Move(7, BEN, CAT)]
    assert moves_to({ANN: 3}, {ANN: 3}) == []


def test_sums_that_do_not_work_out_say_why() -> None:
    now = {ANN: 4 * ONE}
    with pytest.raises(InvalidRequest, match="5 DIEM are named, and 4 DIEM are staked"):
        moves_to(now, {BEN: 5 * ONE})
    with pytest.raises(InvalidRequest, match="5 DIEM are named, and 4 DIEM are staked"):
        moves_to(now, {BEN: 5 * ONE, ANN: REST})
    with pytest.raises(InvalidRequest, match="leaves 3 DIEM of 4 DIEM staked that nobody is named for"):
        moves_to(now, {ANN: ONE})
    with pytest.raises(InvalidRequest, match="Only one can get the rest"):
        moves_to(now, {ANN: REST, BEN: REST})


async def test_moves_are_one_transaction_and_take_effect_at_the_next_midnight() -> None:
    anvil = Anvil("--timestamp", str(START_S))
    await anvil.start()
    try:
        rpc = anvil.rpc
        deployment = await deploy_dev(rpc, USDC)
        known = await addresses(rpc)
        await fund(rpc, deployment, "alice")
        alice = await DevWallet.open(rpc, "alice")
        await stake_hold(alice, deployment, 2_000 * ONE)
        await mint(alice, deployment, 6 * ONE)
        await stake_diem(alice, deployment, 6 * ONE)
        other = known["frank"]
        deployer = await DevWallet.open(rpc, "deployer")
        calls = [operator_call(deployment, other, "https://two.example", other), committed_call(deployment, other, ONE)]
        await execute(deployer, deployment, (await propose(deployer, deployment, calls)).id)

        mine, bobs = Seat(deployment.operator, alice.address), Seat(deployment.operator, known["bob"])
        elsewhere = Seat(other, known["carol"])
        with pytest.raises(Reverted, match="has committed 1 USD a day, and 2 DIEM would be staked to it"):
            await plan(alice, deployment, {elsewhere: 2 * ONE})
        assert [each.amount for each in (await look(rpc, deployment, alice.address)).seats] == [6 * ONE]

        order = await plan(alice, deployment, {bobs: 2 * ONE, elsewhere: ONE})
        before = int(await rpc.call("eth_getTransactionCount", alice.address, "latest"), 16)
        made = await carry_out(alice, deployment, order)
        assert int(await rpc.call("eth_getTransactionCount", alice.address, "latest"), 16) == before + 1
        assert made.effective_at_s == Day.of(made.at_s).end_s

        vault, today = Contracts.of(deployment).vault, Day.of(made.at_s).number
        assert [(each.seat, each.amount, each.onward) for each in made.after.seats] == [
            (mine, 3 * ONE, 3 * ONE),
            (bobs, 2 * ONE, 2 * ONE),
            (elsewhere, ONE, ONE),
        ]
        assert [each.today for each in made.after.seats][1:] == [0, 0]  # nothing before midnight
        await advance_day(rpc)
        for seat, amount in ((mine, 3), (bobs, 2), (elsewhere, 1)):
            assert await read(rpc, vault, "allowanceOf", seat.operator, seat.beneficiary, today + 1) == amount * ONE
        with pytest.raises(Conflict, match="Nothing would change: the stakes of alice are there already"):
            await plan(alice, deployment, {bobs: 2 * ONE})
    finally:
        await anvil.stop()
