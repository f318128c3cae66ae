"""DIEM: an ERC-20 that carries permits and ERC-3009 authorizations, of keys and of contract wallets."""

import pytest
from tests.contracts import signatures
from tests.contracts.evm import Signer, refused
from tests.contracts.freehold_chain import ALICE, BOB, DEPLOYER, ONE, Freehold

A, B = ALICE.address, BOB.address
NONCE = b"\x07" * 32
WALLET = "0x" + "c0de" * 10
# An ERC-1271 wallet: says yes to the digest in its slot 0, and to no other, whatever the signature.
WALLET_CODE = bytes.fromhex("6004355f5414631626ba7e60e01b025f5260205ff3")


@pytest.fixture
def diem(chain: Freehold) -> Freehold:
    chain.give_diem(A, 100 * ONE)
    return chain


def test_it_is_a_plain_token(diem: Freehold) -> None:
    token = diem.diem
    assert (token.name(), token.symbol(), token.decimals()) == ("Diem", "DIEM", 18)
    assert token.eip712Domain()[1:4] == ("Diem", "1", diem.evm.chain_id)
    token.transfer(B, 3, sender=A)
    token.approve(B, 5, sender=A)
    token.transferFrom(A, B, 5, sender=B)
    assert (token.balanceOf(A), token.balanceOf(B)) == (100 * ONE - 8, 8)


def test_only_staking_mints_and_burns(diem: Freehold) -> None:
    assert diem.diem.STAKING() == diem.staking.address
    for who in (DEPLOYER, A):
        with refused("NotStaking", who):
            diem.diem.mint(who, 1, sender=who)
        with refused("NotStaking", who):
            diem.diem.burn(A, 1, sender=who)


def test_a_permit_gives_an_allowance(diem: Freehold) -> None:
    deadline = diem.evm.now_s + 60
    v, r, s = ALICE.vrs(signatures.permit(diem.diem, A, B, 5, deadline))
    diem.diem.permit(A, B, 5, deadline, v, r, s)
    assert diem.diem.allowance(A, B) == 5


FORMS = ["vrs", "bytes"]
KINDS = {signatures.TRANSFER: "transferWithAuthorization", signatures.RECEIVE: "receiveWithAuthorization"}


def signed(signer: Signer, digest: bytes, form: str) -> tuple[object, ...]:
    return signer.vrs(digest) if form == "vrs" else (signer.sign(digest),)


def submit(
    chain: Freehold,
    kind: str,
    form: str,
    *,
    signer: Signer = ALICE,
    amount: int = ONE,
    after_s: int = -1,
    before_s: int = 60,
    sender: str = B,
) -> None:
    """A's authorization to pay B; times are relative to now."""
    message = (A, B, amount, chain.evm.now_s + after_s, chain.evm.now_s + before_s, NONCE)
    digest = signatures.authorization(chain.diem, kind, *message)
    getattr(chain.diem, KINDS[kind])(*message, *signed(signer, digest, form), sender=sender)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", list(KINDS))
class TestAuthorization:
    def test_it_moves_the_amount_once(self, diem: Freehold, kind: str, form: str) -> None:
        submit(diem, kind, form)
        used = diem.evm.events()[0]
        assert (used.name, dict(used.arguments)) == ("AuthorizationUsed", {"authorizer": A, "nonce": NONCE})
        assert (diem.diem.balanceOf(B), diem.diem.authorizationState(A, NONCE)) == (ONE, True)
        with refused("ERC3009UsedAuthorization", A, NONCE):
            submit(diem, kind, form)

    def test_another_key_cant_sign_it(self, diem: Freehold, kind: str, form: str) -> None:
        with refused("ERC3009InvalidSignature"):
            submit(diem, kind, form, signer=BOB)

    @pytest.mark.parametrize(("after_s", "before_s"), [(0, 60), (-60, 0)])
    def test_its_time_has_open_ends(self, diem: Freehold, kind: str, form: str, after_s: int, before_s: int) -> None:
        now = diem.evm.now_s
        with refused("ERC3009InvalidAuthorizationTime", now + after_s, now + before_s):
            submit(diem, kind, form, after_s=after_s, before_s=before_s)

    def test_it_cant_move_more_than_there_is(self, diem: Freehold, kind: str, form: str) -> None:
        with refused("ERC20InsufficientBalance", A, 100 * ONE, 101 * ONE):
            submit(diem, kind, form, amount=101 * ONE)
        assert not diem.diem.authorizationState(A, NONCE)

    def test_cancelled_it_is_void(self, diem: Freehold, kind: str, form: str) -> None:
        digest = signatures.cancellation(diem.diem, A, NONCE)
        with refused("ERC3009InvalidSignature"):
            diem.diem.cancelAuthorization(A, NONCE, *signed(BOB, digest, form))
        diem.diem.cancelAuthorization(A, NONCE, *signed(ALICE, digest, form))
        with refused("ERC3009UsedAuthorization", A, NONCE):
            submit(diem, kind, form)
        with refused("ERC3009UsedAuthorization", A, NONCE):
            diem.diem.cancelAuthorization(A, NONCE, *signed(ALICE, digest, form))


@pytest.mark.parametrize("form", FORMS)
def test_a_transfer_is_anyones_to_submit_and_a_receipt_the_payees_alone(diem: Freehold, form: str) -> None:
    with refused("ERC20InvalidReceiver", B):
        submit(diem, signatures.RECEIVE, form, sender=DEPLOYER)
    submit(diem, signatures.TRANSFER, form, sender=DEPLOYER)
    assert diem.diem.balanceOf(B) == ONE


@pytest.mark.parametrize("form", FORMS)
def test_a_transfers_signature_is_no_receipts(diem: Freehold, form: str) -> None:
    message = (A, B, ONE, 0, 2**40, NONCE)
    digest = signatures.authorization(diem.diem, signatures.TRANSFER, *message)
    with refused("ERC3009InvalidSignature"):
        diem.diem.receiveWithAuthorization(*message, *signed(ALICE, digest, form), sender=B)


@pytest.mark.parametrize("kind", list(KINDS))
def test_a_contract_wallet_authorizes_by_its_own_rule(diem: Freehold, kind: str) -> None:
    diem.diem.transfer(WALLET, 10, sender=A)
    message = (WALLET, B, 4, 0, 2**40, NONCE)
    digest = signatures.authorization(diem.diem, kind, *message)
    verb = getattr(diem.diem, KINDS[kind])
    diem.evm.put_code(WALLET, WALLET_CODE, {0: 1})
    with refused("ERC3009InvalidSignature"):
        verb(*message, b"", sender=B)
    diem.evm.put_code(WALLET, WALLET_CODE, {0: int.from_bytes(digest)})
    verb(*message, b"", sender=B)
    assert diem.diem.balanceOf(B) == 4


def test_a_contract_wallet_cancels_by_its_own_rule(diem: Freehold) -> None:
    digest = signatures.cancellation(diem.diem, WALLET, NONCE)
    diem.evm.put_code(WALLET, WALLET_CODE, {0: int.from_bytes(digest)})
    diem.diem.cancelAuthorization(WALLET, NONCE, b"")
    assert diem.diem.authorizationState(WALLET, NONCE)
