"""Wallets with a key of their own: transactions and signatures as eth-account makes them, on any chain."""

import os
from pathlib import Path

import coincurve
import pytest
from eth_account import Account as Wallets
from eth_account.messages import encode_defunct, encode_typed_data
from tests.chain.lab import EMITTER_INIT, Anvil

from freehold.chain import keystore
from freehold.chain.keywallet import KeyWallet, address_of, rlp, transaction
from freehold.chain.problems import WalletRefused
from freehold.chain.rpc import Rpc

TO = "0x" + "11" * 20
TYPED = {
    "types": {"EIP712Domain": [{"name": "name", "type": "string"}], "Note": [{"name": "text", "type": "string"}]},
    "primaryType": "Note",
    "domain": {"name": "Freehold"},
    "message": {"text": "hello"},
}


@pytest.mark.parametrize(("nonce", "size"), [(0, 0), (1, 1), (127, 55), (128, 56), (300, 300), (2**40, 70_000)])
def test_a_transaction_is_the_one_that_eth_account_signs(nonce: int, size: int) -> None:
    secret, data = os.urandom(32), os.urandom(size)
    ours = transaction(
        coincurve.PrivateKey(secret), chain_id=402_031, nonce=nonce, tip=7, most=10**9, gas=90_000, to=TO, data=data
    )
    fields = {"type": 2, "chainId": 402_031, "nonce": nonce, "maxPriorityFeePerGas": 7, "maxFeePerGas": 10**9}
    theirs = Wallets.sign_transaction({**fields, "gas": 90_000, "to": TO, "value": 0, "data": data}, secret)
    assert ours == bytes(theirs.raw_transaction)
    assert address_of(coincurve.PrivateKey(secret)) == Wallets.from_key(secret).address


def test_bytes_and_lists_are_prefixed_as_the_yellow_paper_says() -> None:
    assert rlp(b"\x00") == b"\x00" and rlp(b"") == b"\x80" and rlp([]) == b"\xc0"
    assert rlp([b"cat", b"dog"]) == b"\xc8\x83cat\x83dog"


async def test_texts_and_typed_data_are_signed_as_eth_account_does() -> None:
    account = Wallets.create()
    async with Rpc("http://127.0.0.1:9") as nowhere:
        wallet = KeyWallet(nowhere, bytes(account.key))
        assert account.key.hex() not in repr(wallet)
        text, typed = await wallet.sign("hello"), await wallet.sign_typed(TYPED)
    assert text == "0x" + account.sign_message(encode_defunct(text="hello")).signature.hex()
    assert typed == "0x" + account.sign_message(encode_typed_data(full_message=TYPED)).signature.hex()


async def test_it_sends_on_any_chain_and_says_when_it_cant_pay_the_gas() -> None:
    anvil = Anvil("--chain-id", "8453", "--no-mining")
    await anvil.start()
    try:
        account = Wallets.create()
        wallet = KeyWallet(anvil.rpc, bytes(account.key), name="mine")
        with pytest.raises(WalletRefused, match=f"mine has 0 wei .* to {account.address}"):
            await wallet.transmit(TO, "0x", gas=21_000)
        await anvil.rpc.call("anvil_setBalance", account.address, hex(10**18))
        for _ in range(2):
            base = int((await anvil.rpc.call("eth_getBlockByNumber", "latest", False))["baseFeePerGas"], 16)
            sent = await wallet.transmit(TO, EMITTER_INIT, gas=100_000)
            offered = await anvil.rpc.call("eth_getTransactionByHash", sent)
            tip, most = (int(offered[name], 16) for name in ("maxPriorityFeePerGas", "maxFeePerGas"))
            assert offered["type"] == "0x2" and base > 0 and most == 2 * base + tip  # the base fee may double
            await anvil.mine()
            receipt = await anvil.rpc.call("eth_getTransactionReceipt", sent)
            assert int(receipt["status"], 16) == 1 and receipt["from"] == account.address.lower()
    finally:
        await anvil.stop()


def test_a_keystore_is_what_eth_account_reads_and_the_other_way_round(tmp_path: Path) -> None:
    secret = keystore.new_secret()
    path = tmp_path / "wallet.json"
    address = keystore.write(path, secret, "pass")
    assert address == Wallets.from_key(secret).address == keystore.address_in(path)
    assert bytes(Wallets.decrypt(path.read_text("utf-8"), "pass")) == keystore.open_secret(path, "pass") == secret
    with pytest.raises(WalletRefused, match="never overwritten"):
        keystore.write(path, secret, "pass")
    with pytest.raises(WalletRefused, match="An empty password"):
        keystore.write(tmp_path / "other.json", secret, "")
