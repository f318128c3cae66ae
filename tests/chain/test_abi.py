"""The ABI codec, and contracts' refusals in words."""

from typing import Any

import pytest
import rlp
from eth_abi.abi import encode
from eth_utils.crypto import keccak

from freehold.chain.abi import AbiError, Contract, Failure, Log, decode_failure, from_hex, template, words
from freehold.chain.contracts import SENTENCES, explain, why
from freehold.chain.deploy import created_address
from freehold.chain.events import ALLOWANCE_CHANGED, DEPOSITED

ALICE = "0x70997970C51812dc3A010C7d01b50e0d17dc79C8"
ONE = 10**18


def error(signature: str, *values: Any) -> bytes:
    kinds = signature.partition("(")[2].rstrip(")").split(",")
    return keccak(text=signature)[:4] + encode([kind for kind in kinds if kind], values)


def test_a_call_is_encoded_by_name() -> None:
    data = template("Hold").call("transfer", ALICE, 5)
    assert data == "0xa9059cbb" + encode(["address", "uint256"], [ALICE, 5]).hex()


def test_an_overload_is_named_by_its_signature() -> None:
    diem = template("Diem")
    with pytest.raises(AbiError, match="several functions named"):
        diem.call("cancelAuthorization", ALICE, bytes(32), b"")
    assert diem.call("cancelAuthorization(address,bytes32,bytes)", ALICE, bytes(32), b"").startswith("0x")


@pytest.mark.parametrize(
    ("function", "arguments", "reason"),
    [
        ("transfer", (ALICE,), "takes 2 arguments, not 1"),
        ("transfer", (ALICE, -1), "don't fit transfer"),
        ("transfer", ("nobody", 1), "don't fit transfer"),
        ("fly", (), "has no function fly"),
    ],
)
def test_what_does_not_fit_is_refused(function: str, arguments: tuple[Any, ...], reason: str) -> None:
    with pytest.raises(AbiError, match=reason):
        template("Hold").call(function, *arguments)


def test_results_come_out_plain() -> None:
    staking = template("Staking")
    assert staking.result("balanceOf", encode(["uint256"], [7])) == 7
    assert staking.result("positionOf", encode(["uint256", "uint256"], [7, 8])) == (7, 8)
    assert staking.result("HOLD", encode(["address"], [ALICE.lower()])) == ALICE
    with pytest.raises(AbiError, match=r"doesn't fit Staking\.balanceOf"):
        staking.result("balanceOf", "0x")


def test_a_log_is_decoded_with_its_indexed_arguments() -> None:
    vault = template("CapacityVault").at(ALICE)
    word = encode(["address"], [ALICE])
    log = Log(
        ALICE, (bytes.fromhex(vault.topic("AllowanceChanged")[2:]), word, word), encode(["uint256"] * 3, [1, 2, 3]),
        1, "0x", "0x", 0,
    )  # fmt: skip
    expected = {"operator": ALICE, "beneficiary": ALICE, "day": 1, "today": 2, "onward": 3}
    assert vault.event(log) == ("AllowanceChanged", expected)


def test_a_log_of_another_contract_is_none() -> None:
    assert template("Hold").event(Log(ALICE, (bytes(32),), b"", 1, "0x", "0x", 0)) is None
    assert template("Hold").event(Log(ALICE, (), b"", 1, "0x", "0x", 0)) is None


@pytest.mark.parametrize(("name", "event"), [("CapacityVault", ALLOWANCE_CHANGED), ("Prepaid", DEPOSITED)])
def test_the_events_that_are_read_are_the_artifacts(name: str, event: dict[str, Any]) -> None:
    (known,) = [item for item in template(name).abi if item["type"] == "event" and item["name"] == event["name"]]
    kept = [{key: item[key] for key in ("name", "type", "indexed")} for item in known["inputs"]]
    assert kept == event["inputs"]


@pytest.mark.parametrize(
    ("data", "name", "sentence"),
    [
        (
            error("BeyondPosition(address,address,address,uint256,uint256)", ALICE, ALICE, ALICE, 5 * ONE, ONE // 2),
            "BeyondPosition",
            "the position is 0.5 DIEM, less than 5",
        ),
        (
            error("StillCooling(uint256,uint256,uint256)", 3, 1_800_086_400, 1_800_000_000),
            "StillCooling",
            "request 3 can be withdrawn at 2027-01-16T08:00:00Z, and the chain's time is 2027-01-15T08:00:00Z",
        ),
        (
            error("BeyondCommitted(uint256,uint256)", 41 * ONE, 40 * ONE),
            "BeyondCommitted",
            "operators have committed 40 USD a day in all, and there would be 41 DIEM",
        ),
        (
            error("BeyondCommitted(address,uint256,uint256)", ALICE, 41 * ONE, 40 * ONE),
            "BeyondCommitted",
            f"operator {ALICE} has committed 40 USD a day, and 41 DIEM would be staked to it",
        ),
        (error("Error(string)", "ERC20: paused."), "Error", "ERC20: paused"),
        (error("Error(string)", "paused.")[:-1] + b"A", "Error", "paused"),  # as USDC's compiler leaves it
        (error("Panic(uint256)", 0x11), "Panic", "a number became too large or negative"),
        (error("ZeroAmount()"), "ZeroAmount", "the amount is zero"),
    ],
)
def test_a_refusal_of_a_contract_is_a_sentence(data: bytes, name: str, sentence: str) -> None:
    assert why(data, "execution reverted") == (name, sentence)


def test_an_error_without_a_sentence_still_has_words_and_numbers() -> None:
    assert explain(Failure("CurveBelow", {"last": 1, "least": 2})) == "curve below (last 1, least 2)"


def test_a_revert_without_data_says_what_the_node_said() -> None:
    assert why(b"", "execution reverted") == (None, "execution reverted")
    assert why(b"\x01\x02\x03\x04", "execution reverted") == (None, "execution reverted")
    assert decode_failure(None, []) is None


def test_every_error_of_the_contracts_verbs_has_a_sentence_that_fits_its_arguments() -> None:
    openzeppelin = {
        "AddressEmptyCode",
        "CloneArgumentsTooLong",
        "Create2EmptyBytecode",
        "FailedDeployment",
        "InsufficientBalance",
        "FailedCall",
        "ERC20InvalidApprover",
        "ERC20InvalidSender",
        "ERC20InvalidSpender",
    }
    others = ("Curve", "SafeERC20", "SafeCast", "Checkpoint")
    for name in ("CapacityVault", "Staking", "Prepaid", "Strips", "EpochBook"):
        for item in template(name).abi:
            if item["type"] == "error" and item["name"] not in openzeppelin and not item["name"].startswith(others):
                arguments = {argument["name"]: 1 for argument in item["inputs"]}
                failure = Failure(item["name"], arguments)
                assert item["name"] in SENTENCES
                assert explain(failure) != failure.sentence()


@pytest.mark.parametrize(
    ("name", "said"),
    [("InsufficientUSDCBalance", "insufficient USDC balance"), ("readyAt", "ready at"), ("id", "id"), ("a_b", "a b")],
)
def test_names_become_words(name: str, said: str) -> None:
    assert words(name) == said


def test_a_contract_without_an_address_is_a_template() -> None:
    with pytest.raises(AbiError, match="has no address"):
        _ = Contract([], name="it").address


@pytest.mark.parametrize("nonce", [0, 1, 127, 128, 255, 256, 70_000])
def test_a_contracts_address_follows_from_its_creators_nonce(nonce: int) -> None:
    assert from_hex(created_address(ALICE, nonce)) == keccak(rlp.encode([from_hex(ALICE), nonce]))[12:]


def test_the_first_contract_of_anvils_first_account_is_where_it_always_is() -> None:
    known = "0x5FbDB2315678afecb367f032d93F642f64180aa3"
    assert created_address("0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266", 0) == known
