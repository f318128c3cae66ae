"""Prepaid, with Circle's own USDC: every deposit reaches the treasury and names whom it is for."""

from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from eth_abi import encode
from eth_utils import keccak
from tests.contracts import signatures
from tests.contracts.evm import Contract, Evm, Signer, refused
from tests.contracts.freehold_chain import (
    ALICE,
    BOB,
    CAROL,
    DEPLOYER,
    NOBODY,
    TREASURY,
    artifact,
    deploy_prepaid,
    deploy_usdc,
)

A, B, C = ALICE.address, BOB.address, CAROL.address
SALT = b"\x05" * 32
FIVE = 5_000_000


@dataclass(frozen=True)
class Shop:
    evm: Evm
    usdc: Contract
    prepaid: Contract


@pytest.fixture(scope="module")
def opened() -> Shop:
    evm = Evm()
    usdc = deploy_usdc(evm)
    usdc.mint(A, 100_000_000, sender=DEPLOYER)
    return Shop(evm, usdc, deploy_prepaid(evm, usdc))


@pytest.fixture
def shop(opened: Shop) -> Iterator[Shop]:
    with opened.evm.undone():
        yield opened


def authorize(shop: Shop, beneficiary: str, *, signer: Signer = ALICE, payee: str | None = None) -> bytes:
    """A's signed ReceiveWithAuthorization of five USDC, its nonce bound to `beneficiary`."""
    nonce = shop.prepaid.authorizationNonce(beneficiary, SALT)
    digest = signatures.authorization(
        shop.usdc, signatures.RECEIVE, A, payee or shop.prepaid.address, FIVE, 0, 2**40, nonce
    )
    return signer.sign(digest)


def submit(shop: Shop, beneficiary: str, signature: bytes, *, salt: bytes = SALT, amount: int = FIVE) -> None:
    shop.prepaid.depositWithAuthorization(A, beneficiary, amount, 0, 2**40, salt, signature, sender=C)


def deposited(shop: Shop) -> list[tuple[str, str, int]]:
    return [
        (event.arguments["beneficiary"], event.arguments["payer"], event.arguments["amount"])
        for event in shop.evm.events()
        if event.name == "Deposited"
    ]


def test_a_deposit_reaches_the_treasury_and_names_its_beneficiary(shop: Shop) -> None:
    shop.usdc.approve(shop.prepaid.address, FIVE, sender=A)
    shop.prepaid.deposit(B, FIVE, sender=A)
    assert deposited(shop) == [(B, A, FIVE)]
    assert (shop.prepaid.USDC(), shop.prepaid.TREASURY()) == (shop.usdc.address, TREASURY)
    assert shop.usdc.balanceOf(TREASURY) == FIVE
    assert shop.usdc.balanceOf(shop.prepaid.address) == 0


def test_a_deposit_of_nothing_or_for_nobody_or_without_approval_is_refused(shop: Shop) -> None:
    with refused("ZeroAmount"):
        shop.prepaid.deposit(B, 0, sender=A)
    with refused("ZeroAddress"):
        shop.prepaid.deposit(NOBODY, FIVE, sender=A)
    with refused("Error", "ERC20: transfer amount exceeds allowance"):
        shop.prepaid.deposit(B, FIVE, sender=A)


def test_an_authorization_pays_for_the_beneficiary_it_is_bound_to_whoever_submits_it(shop: Shop) -> None:
    signature = authorize(shop, B)
    submit(shop, B, signature)
    assert deposited(shop) == [(B, A, FIVE)]
    assert shop.usdc.balanceOf(TREASURY) == FIVE
    assert shop.usdc.balanceOf(shop.prepaid.address) == 0
    with refused("Error", "FiatTokenV2: authorization is used or canceled"):
        submit(shop, B, signature)


def test_nobody_submits_an_authorization_for_a_beneficiary_of_their_own(shop: Shop) -> None:
    with refused("Error", "FiatTokenV2: invalid signature"):
        submit(shop, C, authorize(shop, B))


@pytest.mark.parametrize("fault", ["signer", "salt", "amount", "payee"])
def test_an_authorization_of_anything_else_is_refused(shop: Shop, fault: str) -> None:
    signature = authorize(
        shop, B, signer=BOB if fault == "signer" else ALICE, payee=TREASURY if fault == "payee" else None
    )
    with refused("Error", "FiatTokenV2: invalid signature"):
        submit(
            shop,
            B,
            signature,
            salt=bytes(32) if fault == "salt" else SALT,
            amount=FIVE + 1 if fault == "amount" else FIVE,
        )


def test_an_authorization_to_prepaid_cant_be_spent_around_it(shop: Shop) -> None:
    """USDC lets only the payee submit it; else the money would arrive here without a beneficiary."""
    nonce = shop.prepaid.authorizationNonce(B, SALT)
    with refused("Error", "FiatTokenV2: caller must be the payee"):
        shop.usdc.receiveWithAuthorization(A, shop.prepaid.address, FIVE, 0, 2**40, nonce, authorize(shop, B), sender=C)


def test_an_authorization_of_nothing_or_for_nobody_is_refused(shop: Shop) -> None:
    with refused("ZeroAmount"):
        submit(shop, B, b"", amount=0)
    with refused("ZeroAddress"):
        submit(shop, NOBODY, b"")


def test_the_treasury_cant_pay_itself_for_somebodys_credit(shop: Shop) -> None:
    shop.usdc.transfer(TREASURY, FIVE, sender=A)
    shop.usdc.approve(shop.prepaid.address, FIVE, sender=TREASURY)
    with refused("FromTreasury", TREASURY, FIVE):
        shop.prepaid.deposit(B, FIVE, sender=TREASURY)
    with refused("FromTreasury", TREASURY, FIVE):
        shop.prepaid.depositWithAuthorization(TREASURY, B, FIVE, 0, 2**40, SALT, b"", sender=C)


def test_the_nonce_names_chain_contract_beneficiary_and_salt(shop: Shop) -> None:
    bound = encode(["uint256", "address", "address", "bytes32"], [shop.evm.chain_id, shop.prepaid.address, B, SALT])
    assert shop.prepaid.authorizationNonce(B, SALT) == keccak(bound)


def test_it_needs_a_token_and_a_treasury(shop: Shop) -> None:
    for usdc, treasury in ((NOBODY, TREASURY), (shop.usdc.address, NOBODY)):
        with refused("ZeroAddress"):
            shop.evm.deploy(artifact("Prepaid"), usdc, treasury, sender=DEPLOYER)
