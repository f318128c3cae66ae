"""Sign-in of wallets that are contracts, on a real chain: the contract says whether a signature is good (ERC-1271)."""

from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest
from eth_abi.abi import encode
from eth_account import Account as Wallets
from eth_account.signers.local import LocalAccount
from eth_utils.address import to_checksum_address
from tests.chain.lab import Anvil
from tests.contracts.compiled import compiled

from freehold.chain.abi import Contract
from freehold.chain.erc1271 import MAGIC, WRAPPED, ContractSignatures
from freehold.chain.problems import NodeUnavailable
from freehold.clock import FrozenClock
from freehold.db import Database
from freehold.identity.identity import Identity
from freehold.identity.model import SignedIn
from freehold.identity.problems import SignInRefused

from .conftest import SETTINGS, Numbers, signed


@dataclass
class Hall:
    anvil: Anvil
    identity: Identity
    numbers: Numbers

    async def deploy(self, name: str, *arguments: object, kinds: tuple[str, ...]) -> str:
        made = compiled("ContractWallet")[name]
        data = made["bytecode"] + encode(kinds, arguments).hex()
        (sender, *_) = await self.anvil.rpc.call("eth_accounts")
        sent = await self.anvil.rpc.call("eth_sendTransaction", {"from": sender, "data": data, "gas": hex(3_000_000)})
        await self.anvil.mine()
        receipt = await self.anvil.rpc.call("eth_getTransactionReceipt", sent)
        return str(to_checksum_address(receipt["contractAddress"]))

    async def wallet_of(self, owner: LocalAccount) -> str:
        return await self.deploy("ContractWallet", owner.address, kinds=("address",))

    async def sign_in(self, address: str, key: LocalAccount, *, wrap: bool = False, cut: int = 0) -> SignedIn:
        """As `address`, with a signature of `key`."""
        challenge = await self.identity.nonce(address)
        signature = signed(key, challenge.message)
        if wrap:
            inner = bytes.fromhex(signature.removeprefix("0x"))
            signature = (encode(["address", "bytes", "bytes"], [address, b"", inner]) + WRAPPED).hex()
        if cut:
            signature = signature[:-cut]
        return await self.identity.sign_in(challenge.message, signature, create_account=self.numbers.create_account)

    async def refusal(self, address: str, key: LocalAccount, *, wrap: bool = False, cut: int = 0) -> str:
        with pytest.raises(SignInRefused) as refused:
            await self.sign_in(address, key, wrap=wrap, cut=cut)
        return str(refused.value)


@pytest.fixture
async def hall(database: Database) -> AsyncIterator[Hall]:
    anvil = Anvil("--no-mining")
    await anvil.start()
    identity = Identity(
        database, clock=FrozenClock(1_800_000_000), settings=SETTINGS, contracts=ContractSignatures(anvil.rpc)
    )
    yield Hall(anvil, identity, Numbers())
    await anvil.stop()


async def test_a_contract_wallets_owner_signs_in_as_the_contract(hall: Hall) -> None:
    owner = Wallets.create()
    address = await hall.wallet_of(owner)
    session = await hall.sign_in(address, owner)
    assert session.created and session.account.address == address


async def test_a_wallet_with_a_key_signs_in_as_before(hall: Hall) -> None:
    wallet = Wallets.create()
    assert (await hall.sign_in(wallet.address, wallet)).account.address == wallet.address


async def test_another_key_than_the_owners_is_refused(hall: Hall) -> None:
    address = await hall.wallet_of(Wallets.create())
    assert f"the contract at {address} doesn't take this signature" in await hall.refusal(address, Wallets.create())


async def test_who_was_the_owner_before_is_refused(hall: Hall) -> None:
    (first, *_) = await hall.anvil.rpc.call("eth_accounts")
    owner = Wallets.create()
    address = await hall.deploy("ContractWallet", to_checksum_address(first), kinds=("address",))
    assert "doesn't take" in await hall.refusal(address, owner)
    contract = Contract(compiled("ContractWallet")["ContractWallet"]["abi"], address=address)
    await hall.anvil.rpc.call(
        "eth_sendTransaction", {"from": first, "to": address, "data": contract.call("hand", owner.address)}
    )
    await hall.anvil.mine()
    assert (await hall.sign_in(address, owner)).account.address == address


async def test_a_contract_that_reverts_takes_no_signature(hall: Hall) -> None:
    owner = Wallets.create()
    address = await hall.wallet_of(owner)
    assert "doesn't take" in await hall.refusal(address, owner, cut=2)


@pytest.mark.parametrize(
    "words", [b"", b"\x01", bytes(32), bytes([*MAGIC, *([0xFF] * 28)]), bytes(28) + MAGIC, b"\xff" * 64]
)
async def test_a_contract_that_answers_anything_else_takes_no_signature(hall: Hall, words: bytes) -> None:
    address = await hall.deploy("Parrot", words, kinds=("bytes",))
    assert "doesn't take" in await hall.refusal(address, Wallets.create())


async def test_a_deployed_wallets_wrapped_signature_is_unwrapped(hall: Hall) -> None:
    owner = Wallets.create()
    address = await hall.wallet_of(owner)
    assert (await hall.sign_in(address, owner, wrap=True)).account.address == address


async def test_a_wallet_that_isnt_deployed_yet_is_told_to_be(hall: Hall) -> None:
    owner = Wallets.create()
    nowhere = Wallets.create().address
    assert "isn't deployed on this chain (ERC-6492); deploy it first" in await hall.refusal(nowhere, owner, wrap=True)


async def test_where_there_is_no_contract_a_key_must_have_signed(hall: Hall) -> None:
    nowhere = Wallets.create().address
    assert "it was signed by another key" in await hall.refusal(nowhere, Wallets.create())
    assert "64 bytes instead of 65, and there is no contract" in await hall.refusal(nowhere, Wallets.create(), cut=2)


async def test_a_node_that_cant_be_asked_is_said_to_be_away(hall: Hall) -> None:
    owner = Wallets.create()
    address = await hall.wallet_of(owner)
    challenge = await hall.identity.nonce(address)
    await hall.anvil.stop()
    with pytest.raises(NodeUnavailable):
        await hall.identity.sign_in(
            challenge.message, signed(owner, challenge.message), create_account=hall.numbers.create_account
        )
    await hall.anvil.start()
