"""The timelock: nobody's, and with a delay of two days or more off the dev chain."""

import pytest
from tests.contracts.evm import DAY_S, Contract, Evm, Signer, refused
from tests.contracts.freehold_chain import ALICE, DEPLOYER, NO_WORD, artifact

LEAST_S = 2 * DAY_S
EXECUTOR = Signer.of("executor").address


def deploy(evm: Evm, delay_s: int) -> Contract:
    return evm.deploy(artifact("FreeholdTimelock"), delay_s, [DEPLOYER], [EXECUTOR], sender=DEPLOYER)


def change_delay(timelock: Contract, delay_s: int, *, waited_s: int) -> None:
    call = (timelock.address, 0, timelock.updateDelay.data(delay_s), NO_WORD, NO_WORD)
    timelock.schedule(*call, waited_s, sender=DEPLOYER)
    timelock.evm.warp(waited_s)
    timelock.execute(*call, sender=EXECUTOR)


def test_on_the_dev_chain_the_delay_may_be_none() -> None:
    timelock = deploy(Evm(), 0)
    assert timelock.getMinDelay() == 0
    change_delay(timelock, 5, waited_s=0)
    assert timelock.getMinDelay() == 5


def test_elsewhere_it_is_not_created_with_less_than_two_days() -> None:
    assert deploy(Evm(chain_id=1), LEAST_S).getMinDelay() == LEAST_S
    with refused("DelayTooShort", LEAST_S - 1, LEAST_S):
        deploy(Evm(chain_id=1), LEAST_S - 1)


def test_elsewhere_the_delay_never_falls_below_two_days() -> None:
    timelock = deploy(Evm(chain_id=1), 3 * DAY_S)
    with refused("DelayTooShort", LEAST_S - 1, LEAST_S):
        change_delay(timelock, LEAST_S - 1, waited_s=3 * DAY_S)
    timelock = deploy(Evm(chain_id=1), 3 * DAY_S)
    change_delay(timelock, LEAST_S, waited_s=3 * DAY_S)
    assert timelock.getMinDelay() == LEAST_S


def test_a_change_waits_for_the_whole_delay() -> None:
    timelock = deploy(Evm(chain_id=1), LEAST_S)
    with refused("TimelockInsufficientDelay", LEAST_S - 1, LEAST_S):
        change_delay(timelock, 3 * DAY_S, waited_s=LEAST_S - 1)


def test_nobody_else_changes_the_delay() -> None:
    timelock = deploy(Evm(), 0)
    with refused("TimelockUnauthorizedCaller", DEPLOYER):
        timelock.updateDelay(1, sender=DEPLOYER)


@pytest.mark.parametrize("who", [DEPLOYER, EXECUTOR, ALICE.address])
def test_it_has_no_administrator_but_itself(who: str) -> None:
    timelock = deploy(Evm(), 0)
    assert timelock.hasRole(NO_WORD, timelock.address)
    assert not timelock.hasRole(NO_WORD, who)


def test_proposing_and_executing_are_for_those_named() -> None:
    timelock = deploy(Evm(), 0)
    call = (timelock.address, 0, timelock.updateDelay.data(1), NO_WORD, NO_WORD)
    with refused("AccessControlUnauthorizedAccount", EXECUTOR, timelock.PROPOSER_ROLE()):
        timelock.schedule(*call, 0, sender=EXECUTOR)
    timelock.schedule(*call, 0, sender=DEPLOYER)
    with refused("AccessControlUnauthorizedAccount", DEPLOYER, timelock.EXECUTOR_ROLE()):
        timelock.execute(*call, sender=DEPLOYER)
