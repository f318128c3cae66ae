import dataclasses
import re

import pytest
from eth_account import Account as Wallets
from hypothesis import given
from hypothesis import strategies as st

from freehold.identity import eip4361
from freehold.identity.eip4361 import Message, check, checksum, read, signer, write
from freehold.identity.problems import InvalidSignInMessage, SignInRefused

from .conftest import signed

NOW = 1_800_000_000
ADDRESS = "0xC02aaA39b223FE8D0A0e5C4F27eAD9083C756Cc2"
WHOLE = Message(
    domain="example.com:8402",
    address=ADDRESS,
    uri="https://example.com:8402/login?a=1#b",
    chain_id=402031,
    nonce="32891756",
    issued_at_s=NOW,
    scheme="https",
    statement="I accept the ExampleOrg Terms of Service: https://example.com/tos",
    expires_at_s=NOW + 600,
    not_before_s=NOW,
    request_id="some-id%20x",
    resources=("ipfs://bafybeiemxf5abjwjbikoz4mc3a3dla6ual3jsgpdr4cjr3oz3evfyavhwq/", "https://example.com/c.json"),
)
BARE = Message(domain="a.b", address=ADDRESS, uri="http://a.b", chain_id=1, nonce="abcdefgh", issued_at_s=NOW)

FROM_THE_EIP = """https://example.com wants you to sign in with your Ethereum account:
0xC02aaA39b223FE8D0A0e5C4F27eAD9083C756Cc2

I accept the ExampleOrg Terms of Service: https://example.com/tos

URI: https://example.com/login
Version: 1
Chain ID: 1
Nonce: 32891756
Issued At: 2021-09-30T16:25:24Z
Resources:
- ipfs://bafybeiemxf5abjwjbikoz4mc3a3dla6ual3jsgpdr4cjr3oz3evfyavhwq/
- https://example.com/my-web2-claim.json"""


@pytest.mark.parametrize("message", [WHOLE, BARE], ids=["whole", "bare"])
def test_what_is_written_reads_back(message: Message) -> None:
    assert read(write(message)) == message


def test_the_example_of_the_standard_reads() -> None:
    message = read(FROM_THE_EIP)
    assert message.scheme == "https" and message.domain == "example.com" and message.chain_id == 1
    assert message.issued_at_s == 1633019124
    assert message.resources[1] == "https://example.com/my-web2-claim.json"


def test_empty_lists_of_resources_and_empty_request_ids_read() -> None:
    message = read(write(BARE) + "\nRequest ID: \nResources:")
    assert message.request_id == "" and message.resources == ()


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        (" wants you to sign in", " wants you to log in", "first line"),
        ("https://example.com:8402 wants", "exa mple.com wants", "first line"),
        (ADDRESS, ADDRESS[:-1], "address"),
        (ADDRESS, ADDRESS.lower(), ADDRESS),
        (f"{ADDRESS}\n\n", f"{ADDRESS}\n", "empty line after the address"),
        ("Terms", "Términos", "empty line before URI"),
        ("tos\n\nURI", "tos\nURI", "empty line before URI"),
        ("I accept", "I\naccept", "empty line before URI"),
        ("URI: https", "URI:https", "URI"),
        ("Version: 1", "Version: 2", "Version"),
        ("Version: 1\nChain ID: 402031", "Chain ID: 402031\nVersion: 1", "Version"),
        ("Chain ID: 402031", "Chain ID: 0x1", "Chain ID"),
        ("Chain ID: 402031", "Chain ID: ٤", "Chain ID"),
        ("Nonce: 32891756", "Nonce: 3289175", "Nonce"),
        ("Nonce: 32891756", "Nonce: 3289-1756", "Nonce"),
        ("Issued At: 2027-01-15T08:00:00Z", "Issued At: 2027-01-15 08:00:00Z", "Issued At"),
        ("Issued At: 2027-01-15T08:00:00Z", "Issued At: 2027-01-15T08:00:00", "Issued At"),
        ("Issued At: 2027-01-15T08:00:00Z", "Issued At: 2027-02-30T08:00:00Z", "Issued At"),
        ("Expiration Time: 2027", "Expiration time: 2027", "line 10"),
        ("Request ID: some-id%20x", "Request ID: a b", "line 13"),
        ("Resources:\n", "Resources: \n", "line 14"),
        ("- ipfs://", "* ipfs://", "line 14"),
        ("c.json", "c.json\n", "line 16"),
        ("\n", "\r\n", "first line"),
        ("c.json", "c" * 5_000, "longer than"),
    ],
)
def test_a_message_out_of_form_is_refused_naming_the_line(old: str, new: str, named: str) -> None:
    text = write(WHOLE)
    assert old in text
    with pytest.raises(InvalidSignInMessage, match=re.escape(named)):
        read(text.replace(old, new))


@given(st.data())
def test_no_text_is_worse_than_refused(data: st.DataObject) -> None:
    lines = write(WHOLE).split("\n")
    at = data.draw(st.integers(0, len(lines) - 1))
    lines[at] = data.draw(st.one_of(st.text(max_size=40), st.sampled_from(lines)))
    text = "\n".join(lines)
    try:
        message = read(text)
    except InvalidSignInMessage:
        return
    assert message.address == ADDRESS or at == 1


def test_a_fitting_message_is_accepted() -> None:
    check(WHOLE, domain="example.com:8402", chain_id=402031, now_s=NOW + 599)


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"domain": "evil.com"}, "domain is evil.com"),
        ({"domain": "example.com"}, "domain is example.com"),
        ({"uri": "https://evil.com/"}, "URI is https://evil.com/"),
        ({"uri": "https://example.com:8402.evil.com/"}, "isn't on example.com:8402"),
        ({"uri": "https://example.com:8402@evil.com/"}, "isn't on example.com:8402"),
        ({"uri": "ipfs://example.com:8402/"}, "isn't on example.com:8402"),
        ({"scheme": "http"}, "scheme is http"),
        ({"chain_id": 1}, "chain id is 1"),
        ({"issued_at_s": NOW + 3600}, "issued in the future"),
        ({"not_before_s": NOW + 1}, "not valid before 2027-01-15T08:00:01Z"),
        ({"expires_at_s": NOW}, "expired at 2027-01-15T08:00:00Z"),
    ],
)
def test_a_message_meant_for_elsewhere_or_another_time_is_refused(changed: dict[str, object], named: str) -> None:
    message = dataclasses.replace(WHOLE, **changed)  # type: ignore[arg-type]
    with pytest.raises(SignInRefused, match=re.escape(named)):
        check(message, domain="example.com:8402", chain_id=402031, now_s=NOW)


def test_who_signed_is_recovered_whichever_way_v_is_written() -> None:
    wallet = Wallets.create()
    signature = signed(wallet, "hello")
    assert signer("hello", signature) == wallet.address
    low = bytes.fromhex(signature[2:])
    assert signer("hello", (low[:64] + bytes([low[64] - 27])).hex()) == wallet.address


def test_a_changed_text_recovers_somebody_else() -> None:
    wallet = Wallets.create()
    assert signer("hellp", signed(wallet, "hello")) != wallet.address


@pytest.mark.parametrize(
    ("signature", "named"),
    [
        ("0xzz", "not hexadecimal"),
        ("", "0 bytes"),
        ("0x" + "11" * 64, "64 bytes"),
        ("0x" + "11" * 97, "97 bytes"),
        ("0x" + "00" * 65, "not a valid one"),
        ("0x" + "ff" * 65, "not a valid one"),
        ("0x" + "11" * 64 + "1f", "not a valid one"),
    ],
)
def test_a_signature_out_of_form_is_refused(signature: str, named: str) -> None:
    with pytest.raises(SignInRefused, match=named):
        signer("hello", signature)


@given(st.binary(min_size=20, max_size=20))
def test_checksums_are_eip_55(raw: bytes) -> None:
    from eth_utils import to_checksum_address

    assert checksum("0x" + raw.hex().upper()) == to_checksum_address(raw)


@pytest.mark.parametrize("address", ["", "0x", "0x12", ADDRESS[2:], ADDRESS + "0", "0x" + "g" * 40, ADDRESS + "\n"])
def test_what_is_no_address_has_no_checksum(address: str) -> None:
    with pytest.raises(ValueError, match="not an address"):
        eip4361.checksum(address)
