"""Wallets in keystore files: made, imported, listed; they sign, stake, sign in and pay as the named ones do."""

import asyncio
import json
import os
import stat
from pathlib import Path

import pytest
from eth_account import Account as Wallets
from tests.chain.lab import Anvil
from tests.cli.conftest import Server
from tests.cli.webserver import answering, response

SECRET = "correct horse"


@pytest.fixture
def password(tmp_path: Path) -> str:
    path = tmp_path / "password"
    path.write_text(f"{SECRET}\n", "utf-8")
    return str(path)


def test_a_new_wallet_is_kept_encrypted_and_listed(server: Server, password: str) -> None:
    made = server.json("wallet", "new", "savings", "--password-file", password)
    path = Path(made["file"])
    assert stat.S_IMODE(path.stat().st_mode) == 0o600 and stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    secret = Wallets.decrypt(json.loads(path.read_text("utf-8")), SECRET)
    assert Wallets.from_key(secret).address == made["address"]
    assert secret.hex() not in path.read_text("utf-8")
    listed = server.json("wallet", "list")["wallets"]
    assert {"name": "savings", "address": made["address"], "file": str(path)} in listed
    assert server.json("wallet", "export-address", "savings")["address"] == made["address"]
    assert "never overwritten" in server.refused("wallet", "new", "savings", "--password-file", password)


def test_a_key_that_there_is_already_is_imported(server: Server, tmp_path: Path, password: str) -> None:
    account = Wallets.create()
    (tmp_path / "key").write_text(account.key.hex(), "utf-8")
    where = str(tmp_path / "imported.json")
    made = server.json("wallet", "import", where, "--key-file", str(tmp_path / "key"), "--password-file", password)
    assert made["address"] == account.address
    (tmp_path / "key").write_text("0x1234", "utf-8")
    again = server.refused(
        "wallet", "import", str(tmp_path / "x.json"), "--key-file", str(tmp_path / "key"), "--password-file", password
    )
    assert "no private key" in again and "1234" not in again


def test_a_password_is_asked_for_only_on_a_terminal(server: Server, tmp_path: Path) -> None:
    assert "--password-file" in server.refused("wallet", "new", str(tmp_path / "w.json"))


def test_a_password_comes_from_a_file_descriptor(server: Server, tmp_path: Path, password: str) -> None:
    with Path(password).open("rb") as file:
        made = server.json("wallet", "new", str(tmp_path / "w.json"), "--password-fd", str(file.fileno()))
    assert Wallets.decrypt(json.loads(Path(made["file"]).read_text("utf-8")), SECRET)
    reading, writing = os.pipe()
    os.close(writing)
    os.close(reading)
    assert "can't be read" in server.refused("wallet", "new", str(tmp_path / "v.json"), "--password-fd", str(reading))


def test_a_wrong_password_and_a_file_that_is_none_are_said(server: Server, tmp_path: Path, password: str) -> None:
    where = server.json("wallet", "new", str(tmp_path / "w.json"), "--password-file", password)["file"]
    Path(password).write_text("wrong\n", "utf-8")
    words = ("login", "--wallet", where, "--password-file", password)
    assert "The password doesn't open" in server.refused(*words)
    Path(where).write_text("{}", "utf-8")
    assert "is not a keystore file" in server.refused(*words)
    assert "There is no keystore file" in server.refused("wallet", "--wallet", "nobody")


def test_a_keystore_stakes_signs_in_and_tops_up(server: Server, tmp_path: Path, password: str) -> None:
    where = server.json("wallet", "new", str(tmp_path / "mine.json"), "--password-file", password)
    signs = ("--wallet", where["file"], "--password-file", password)
    poor = server.refused("stake", "hold", "5", *signs)
    assert f"freehold dev fund {where['address']}" in poor
    funded = server.json("dev", "fund", where["address"])
    assert (funded["hold"], funded["usdc"]) == ("10000", "1000")
    staked = server.json("stake", "hold", "5", *signs)
    assert (staked["from"], staked["staked"]) == ("mine", "5")
    assert server.json("wallet", "--wallet", where["file"])["staked_hold"] == "5"
    home = tmp_path / "config"
    signed_in = server.run("login", "--json", *signs, "--url", server.url, home=home)
    assert signed_in.exit_code == 0, signed_in.output
    assert json.loads(signed_in.stdout)["address"] == where["address"]
    paid = server.run("top-up", "2.5", "--json", *signs, "--url", server.url, home=home)
    assert paid.exit_code == 0, paid.output
    done = json.loads(paid.stdout)
    assert (done["payer"], done["amount"], done["available"]) == (where["address"], "2.50", "2.50")
    assert server.json("wallet", "--wallet", where["file"])["usdc"] == "997.5"


def test_a_named_wallet_tops_up_the_operators_account(server: Server) -> None:
    server.json("dev", "fund", "frank")
    before = server.json("balance")["available_nano"]
    done = server.json("top-up", "1", "--from", "frank")
    assert done["amount_nano"] == 10**9 and server.json("balance")["available_nano"] == before + 10**9


def test_a_wallet_tops_up_its_own_account_without_any_credentials(server: Server, tmp_path: Path) -> None:
    server.json("dev", "fund", "bob")
    words = ("top-up", "1", "--own", "--from", "bob", "--json", "--url", server.url)
    paid = server.run(*words, home=tmp_path)
    assert paid.exit_code == 0, paid.output
    assert json.loads(paid.stdout)["amount"] == "1.00"


def test_a_name_and_a_file_exclude_each_other(server: Server) -> None:
    result = server.run("stake", "hold", "5", "--from", "alice", "--wallet", "savings")
    assert result.exit_code == 2 and "give one" in result.stderr


async def test_on_another_chain_a_keystore_needs_its_node_and_signs_for_no_other(
    server: Server, tmp_path: Path, password: str
) -> None:
    account = Wallets.create()
    (tmp_path / "key").write_text(account.key.hex(), "utf-8")
    where = str(tmp_path / "base.json")
    server.json("wallet", "import", where, "--key-file", str(tmp_path / "key"), "--password-file", password)
    told = {"chain_id": 8453, "rpc_url": None, "operator": account.address, "confirmations": 2, "from_block": 1}
    contracts = dict.fromkeys(("hold", "staking", "diem", "vault", "prepaid", "usdc", "timelock"), account.address)
    anvil = Anvil("--chain-id", "10")
    await anvil.start()
    try:
        with answering(response(json.dumps({**told, "contracts": contracts}).encode())) as url:
            words = ("transfer", "1", "usdc", account.address, "--url", url)
            assert "exist on the development chain" in await asyncio.to_thread(
                server.refused, *words, "--from", "alice"
            )
            signs = ("--wallet", where, "--password-file", password)
            assert "--rpc-url URL" in await asyncio.to_thread(server.refused, *words, *signs)
            node = ("--rpc-url", f"http://127.0.0.1:{anvil.port}")
            said = await asyncio.to_thread(server.refused, *words, *signs, *node)
            assert "is on chain 10, and this server is on chain 8453" in said
    finally:
        await anvil.stop()
