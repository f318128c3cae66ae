import pytest

from freehold.ledger.model import Source
from freehold.ledger.problems import InsufficientCredit

from .conftest import Bench


async def test_a_settled_hold_charges_its_cost_and_gives_the_rest_back(bench: Bench) -> None:
    await bench.prepaid(1_000)
    hold = await bench.hold(600)
    assert (await bench.available(), await bench.held()) == (400, 600)
    charge = await bench.settle(hold, 250)
    assert (charge.cost_nano, charge.absorbed_nano, charge.remaining[Source.PREPAID]) == (250, 0, 750)
    assert (await bench.available(), await bench.held()) == (750, 0)
    assert await bench.line("revenue:usage") == 250


async def test_a_hold_that_does_not_fit_is_refused_with_the_numbers(bench: Bench) -> None:
    await bench.prepaid(1_000)
    with pytest.raises(InsufficientCredit) as refused:
        await bench.hold(1_001)
    assert "0.000001001 USD" in refused.value.message and "prepaid 0.000001" in refused.value.message
    assert (await bench.available(), await bench.held()) == (1_000, 0)
