"""DIEM's and USDC's authorizations under random histories: nothing moves twice, or without its owner's word.

DIEM by transfers, permits and ERC-3009; USDC through Prepaid, whose events alone must add up to the treasury's money.
"""

from collections import Counter
from dataclasses import dataclass
from functools import cache

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test
from tests.contracts import signatures
from tests.contracts.evm import Contract, Refused, Signer, refused
from tests.contracts.freehold_chain import (
    DEPLOYER,
    ONE,
    TREASURY,
    Freehold,
    deploy,
    deploy_prepaid,
    deploy_usdc,
)
from tests.contracts.lengths import histories, limit_s

SIGNERS = {signer.address: signer for signer in map(Signer.of, ("ann", "ben", "cat"))}
PEOPLE = list(SIGNERS)
EACH_DIEM = 1_000 * ONE
EACH_USDC = 1_000_000_000
INVALID = ("Error", "FiatTokenV2: invalid signature")
USED = ("Error", "FiatTokenV2: authorization is used or canceled")


@dataclass(frozen=True)
class Shop:
    chain: Freehold
    usdc: Contract
    prepaid: Contract


@dataclass(frozen=True)
class Slip:
    """A signed ERC-3009 message that is about in the world, for anyone to submit as often as they like."""

    kind: str
    payer: str
    payee: str
    amount: int
    after_s: int
    before_s: int
    nonce: bytes
    signer: str

    def message(self) -> tuple[object, ...]:
        return (self.payer, self.payee, self.amount, self.after_s, self.before_s, self.nonce)


@dataclass(frozen=True)
class Voucher:
    """A signed USDC authorization, bound to its beneficiary."""

    payer: str
    beneficiary: str
    amount: int
    salt: bytes
    signature: bytes


@cache
def shop_at_rest() -> Shop:
    chain = deploy()
    usdc = deploy_usdc(chain.evm)
    prepaid = deploy_prepaid(chain.evm, usdc)
    for person in PEOPLE:
        chain.give_diem(person, EACH_DIEM)
        usdc.mint(person, EACH_USDC, sender=DEPLOYER)
        usdc.approve(prepaid.address, 2**256 - 1, sender=person)
    return Shop(chain, usdc, prepaid)


people = st.sampled_from(PEOPLE)
diems = st.one_of(st.integers(0, 5), st.integers(0, 2 * EACH_DIEM // 3), st.just(EACH_DIEM + 1))
usdcs = st.one_of(st.integers(0, 5), st.integers(0, EACH_USDC // 2), st.just(3 * EACH_USDC + 1))
nonces = st.integers(0, 5).map(lambda number: number.to_bytes(32))
few = st.integers(-100, 200)
thieves = st.sampled_from([None] * 5 + PEOPLE)
"""Who signs: None is the owner."""


class PaymentsMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        shop = shop_at_rest()
        self.evm, self.diem, self.usdc, self.prepaid = shop.chain.evm, shop.chain.diem, shop.usdc, shop.prepaid
        self.undone = self.evm.undone()
        self.undone.__enter__()
        self.diems = Counter(dict.fromkeys(PEOPLE, EACH_DIEM))
        self.usdcs = Counter(dict.fromkeys(PEOPLE, EACH_USDC))
        self.approved: Counter[tuple[str, str]] = Counter()
        self.permits: Counter[str] = Counter()
        self.used: set[tuple[str, bytes]] = set()
        self.slips: list[Slip] = []
        self.vouchers: list[Voucher] = []
        self.paid: set[Voucher] = set()
        self.credit: Counter[str] = Counter()
        self.credit_by_events: Counter[str] = Counter()

    def teardown(self) -> None:
        self.undone.__exit__(None, None, None)

    # --- DIEM ---

    def moved(self, payer: str, payee: str, amount: int) -> None:
        self.diems[payer] -= amount
        self.diems[payee] += amount

    @rule(payer=people, payee=people, amount=diems)
    def transfer(self, payer: str, payee: str, amount: int) -> None:
        if amount > self.diems[payer]:
            with refused("ERC20InsufficientBalance", payer, self.diems[payer], amount):
                self.diem.transfer(payee, amount, sender=payer)
            return
        self.diem.transfer(payee, amount, sender=payer)
        self.moved(payer, payee, amount)

    @rule(owner=people, spender=people, thief=thieves, amount=diems, left_s=few)
    def permit(self, owner: str, spender: str, thief: str | None, amount: int, left_s: int) -> None:
        signer = thief or owner
        deadline_s = self.evm.now_s + left_s
        v, r, s = SIGNERS[signer].vrs(signatures.permit(self.diem, owner, spender, amount, deadline_s))
        refusal = "ERC2612InvalidSigner" if signer != owner else None
        if left_s < 0:
            refusal = "ERC2612ExpiredSignature"
        try:
            self.diem.permit(owner, spender, amount, deadline_s, v, r, s)
        except Refused as problem:
            assert problem.name == refusal
        else:
            assert refusal is None
            self.approved[owner, spender] = amount
            self.permits[owner] += 1

    @rule(owner=people, spender=people, payee=people, amount=diems)
    def spend(self, owner: str, spender: str, payee: str, amount: int) -> None:
        refusal = "ERC20InsufficientBalance" if amount > self.diems[owner] else None
        if amount > self.approved[owner, spender]:
            refusal = "ERC20InsufficientAllowance"
        try:
            self.diem.transferFrom(owner, payee, amount, sender=spender)
        except Refused as problem:
            assert problem.name == refusal
        else:
            assert refusal is None
            self.approved[owner, spender] -= amount
            self.moved(owner, payee, amount)

    @rule(
        kind=st.sampled_from([signatures.TRANSFER, signatures.RECEIVE]),
        payer=people,
        payee=people,
        thief=thieves,
        amount=diems,
        nonce=nonces,
        after_s=st.one_of(st.just(-1), st.just(-1), few),
        before_s=st.one_of(st.just(10_000), st.just(10_000), few),
        at_once=st.booleans(),
        as_bytes=st.booleans(),
    )
    def write_slip(
        self,
        kind: str,
        payer: str,
        payee: str,
        thief: str | None,
        amount: int,
        nonce: bytes,
        after_s: int,
        before_s: int,
        at_once: bool,
        as_bytes: bool,
    ) -> None:
        now_s = self.evm.now_s
        self.slips.append(Slip(kind, payer, payee, amount, now_s + after_s, now_s + before_s, nonce, thief or payer))
        if at_once:
            self.submit(self.slips[-1], payee, as_bytes)

    def refusal_of(self, slip: Slip, sender: str) -> str | None:
        if slip.signer != slip.payer:
            return "ERC3009InvalidSignature"
        if slip.kind == signatures.RECEIVE and sender != slip.payee:
            return "ERC20InvalidReceiver"
        if not slip.after_s < self.evm.now_s < slip.before_s:
            return "ERC3009InvalidAuthorizationTime"
        if (slip.payer, slip.nonce) in self.used:
            return "ERC3009UsedAuthorization"
        return "ERC20InsufficientBalance" if slip.amount > self.diems[slip.payer] else None

    @precondition(lambda self: self.slips)
    @rule(data=st.data(), sender=st.sampled_from([None] * 5 + PEOPLE), as_bytes=st.booleans())
    def submit_slip(self, data: st.DataObject, sender: str | None, as_bytes: bool) -> None:
        slip = data.draw(st.sampled_from(self.slips))
        self.submit(slip, sender or slip.payee, as_bytes)

    def submit(self, slip: Slip, sender: str, as_bytes: bool) -> None:
        digest = signatures.authorization(
            self.diem, slip.kind, slip.payer, slip.payee, slip.amount, slip.after_s, slip.before_s, slip.nonce
        )
        signer = SIGNERS[slip.signer]
        signature = (signer.sign(digest),) if as_bytes else signer.vrs(digest)
        transfer = slip.kind == signatures.TRANSFER
        verb = self.diem.transferWithAuthorization if transfer else self.diem.receiveWithAuthorization
        refusal = self.refusal_of(slip, sender)
        try:
            verb(*slip.message(), *signature, sender=sender)
        except Refused as problem:
            assert problem.name == refusal
        else:
            assert refusal is None
            self.used.add((slip.payer, slip.nonce))
            self.moved(slip.payer, slip.payee, slip.amount)

    @rule(owner=people, thief=thieves, nonce=nonces, as_bytes=st.booleans())
    def cancel_slip(self, owner: str, thief: str | None, nonce: bytes, as_bytes: bool) -> None:
        signer = thief or owner
        digest = signatures.cancellation(self.diem, owner, nonce)
        signature = (SIGNERS[signer].sign(digest),) if as_bytes else SIGNERS[signer].vrs(digest)
        refusal = "ERC3009UsedAuthorization" if (owner, nonce) in self.used else None
        if signer != owner:
            refusal = "ERC3009InvalidSignature"
        try:
            self.diem.cancelAuthorization(owner, nonce, *signature)
        except Refused as problem:
            assert problem.name == refusal
        else:
            assert refusal is None
            self.used.add((owner, nonce))

    # --- Prepaid ---

    def deposited(self, payer: str, beneficiary: str, amount: int) -> None:
        self.usdcs[payer] -= amount
        self.credit[beneficiary] += amount
        for event in self.evm.events():
            if event.name == "Deposited":
                assert event.arguments["payer"] == payer
                self.credit_by_events[event.arguments["beneficiary"]] += event.arguments["amount"]

    @rule(payer=people, beneficiary=people, amount=usdcs)
    def deposit(self, payer: str, beneficiary: str, amount: int) -> None:
        refusal = "Error" if amount > self.usdcs[payer] else None
        if amount == 0:
            refusal = "ZeroAmount"
        try:
            self.prepaid.deposit(beneficiary, amount, sender=payer)
        except Refused as problem:
            assert problem.name == refusal
        else:
            assert refusal is None
            self.deposited(payer, beneficiary, amount)

    @rule(payer=people, beneficiary=people, amount=st.integers(1, EACH_USDC // 4), salt=nonces)
    def write_voucher(self, payer: str, beneficiary: str, amount: int, salt: bytes) -> None:
        nonce = self.prepaid.authorizationNonce(beneficiary, salt)
        digest = signatures.authorization(
            self.usdc, signatures.RECEIVE, payer, self.prepaid.address, amount, 0, 2**40, nonce
        )
        self.vouchers.append(Voucher(payer, beneficiary, amount, salt, SIGNERS[payer].sign(digest)))

    @precondition(lambda self: self.vouchers)
    @rule(data=st.data(), sender=people, claimed=st.sampled_from([None] * 4 + PEOPLE))
    def submit_voucher(self, data: st.DataObject, sender: str, claimed: str | None) -> None:
        """By anyone, and now and then for a beneficiary of the submitter's choice."""
        voucher = data.draw(st.sampled_from(self.vouchers))
        beneficiary = claimed or voucher.beneficiary
        spent = any(
            (paid.payer, paid.beneficiary, paid.salt) == (voucher.payer, beneficiary, voucher.salt)
            for paid in self.paid
        )
        refusal: tuple[str, str] | None = None
        if voucher.amount > self.usdcs[voucher.payer]:
            refusal = ("Error", "ERC20: transfer amount exceeds balance")
        if spent:
            refusal = USED
        if beneficiary != voucher.beneficiary:
            refusal = INVALID
        try:
            self.prepaid.depositWithAuthorization(
                voucher.payer, beneficiary, voucher.amount, 0, 2**40, voucher.salt, voucher.signature, sender=sender
            )
        except Refused as problem:
            assert (problem.name, *problem.arguments) == refusal or (refusal == INVALID and spent)
        else:
            assert refusal is None
            self.paid.add(voucher)
            self.deposited(voucher.payer, beneficiary, voucher.amount)

    @rule(seconds=st.integers(1, 100))
    def wait(self, seconds: int) -> None:
        self.evm.warp(seconds)

    @invariant()
    def everyone_has_what_the_history_gave(self) -> None:
        for person in PEOPLE:
            assert self.diem.balanceOf(person) == self.diems[person]
            assert self.usdc.balanceOf(person) == self.usdcs[person]
            assert self.diem.nonces(person) == self.permits[person]
        assert self.diem.totalSupply() == self.diems.total()

    @invariant()
    def the_treasury_has_every_deposit_and_prepaid_nothing(self) -> None:
        assert self.credit_by_events == self.credit
        assert self.usdc.balanceOf(TREASURY) == self.credit.total()
        assert self.usdc.balanceOf(self.prepaid.address) == 0


@pytest.mark.timeout(limit_s(900))  # a minute of work, on a machine that may be busy
def test_payments_keep_their_laws_under_any_history() -> None:
    run_state_machine_as_test(
        PaymentsMachine, settings=settings(max_examples=histories(300), stateful_step_count=50, deadline=None)
    )
