"""HOLD: a plain ERC-20 with permits, all of whose supply is the deployer's at first."""

from tests.contracts import signatures
from tests.contracts.evm import refused
from tests.contracts.freehold_chain import ALICE, BOB, DEPLOYER, GENESIS, Freehold


def test_the_genesis_supply_is_the_deployers(chain: Freehold) -> None:
    assert (chain.hold.name(), chain.hold.symbol(), chain.hold.decimals()) == ("Freehold", "HOLD", 18)
    assert chain.hold.totalSupply() == chain.hold.balanceOf(DEPLOYER) == GENESIS


def test_it_moves_by_transfer_and_by_allowance(chain: Freehold) -> None:
    chain.hold.transfer(ALICE.address, 10, sender=DEPLOYER)
    chain.hold.approve(BOB.address, 4, sender=ALICE.address)
    chain.hold.transferFrom(ALICE.address, BOB.address, 3, sender=BOB.address)
    assert (chain.hold.balanceOf(ALICE.address), chain.hold.balanceOf(BOB.address)) == (7, 3)
    with refused("ERC20InsufficientAllowance", BOB.address, 1, 2):
        chain.hold.transferFrom(ALICE.address, BOB.address, 2, sender=BOB.address)
    with refused("ERC20InsufficientBalance", BOB.address, 3, 4):
        chain.hold.transfer(ALICE.address, 4, sender=BOB.address)


def test_a_permit_gives_the_allowance_that_was_signed_once(chain: Freehold) -> None:
    deadline = chain.evm.now_s + 1
    v, r, s = ALICE.vrs(signatures.permit(chain.hold, ALICE.address, BOB.address, 5, deadline))
    chain.hold.permit(ALICE.address, BOB.address, 5, deadline, v, r, s)
    assert chain.hold.allowance(ALICE.address, BOB.address) == 5
    assert chain.hold.nonces(ALICE.address) == 1
    chain.evm.warp(2)
    with refused("ERC2612ExpiredSignature", deadline):
        chain.hold.permit(ALICE.address, BOB.address, 5, deadline, v, r, s)
