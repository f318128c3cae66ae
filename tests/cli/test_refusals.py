"""Whatever goes wrong is one sentence on stderr with exit code 1; a command line that isn't understood is 2."""

import os
import pty
import signal
import socket
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from freehold.cli.root import cli, sentence
from freehold.money import AmountError
from freehold.problems import LedgerUnavailable

from .webserver import answering, response

STATUS = response(b'{"ready": true}')


def run(tmp_path: Path, *words: str, stdin: str | None = None) -> Result:
    """One command line with an empty configuration folder."""
    nothing = {name: None for name in os.environ if name.startswith("FREEHOLD_")}
    env = {**nothing, "XDG_CONFIG_HOME": str(tmp_path)}
    return CliRunner().invoke(cli, words, input=stdin, env=env, prog_name="freehold")


def refused(result: Result) -> str:
    """The sentence of a refusal."""
    assert result.exit_code == 1, result.output
    assert result.stdout == ""
    assert result.stderr.startswith("freehold: ")
    assert len(result.stderr.splitlines()) == 1
    assert "Traceback" not in result.stderr
    return result.stderr


def test_without_a_server_it_says_how_to_start_one(tmp_path: Path) -> None:
    assert "freehold up" in refused(run(tmp_path, "status"))


def test_a_server_that_is_down_is_a_sentence(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    assert f"No server answers at {url}" in refused(run(tmp_path, "status", "--url", url))


def test_without_credentials_it_says_how_to_get_some(tmp_path: Path) -> None:
    said = refused(run(tmp_path, "balance", "--url", "http://127.0.0.1:1"))
    assert "FREEHOLD_API_KEY" in said
    assert "freehold login" in said


def test_the_operators_commands_say_where_their_token_is(tmp_path: Path) -> None:
    assert "--data" in refused(run(tmp_path, "accounts", "list", "--url", "http://127.0.0.1:1"))


@pytest.mark.parametrize("body", [b"<html>", b"[]", b"null", b'{"unexpected": 1}', b"\xff"])
@pytest.mark.parametrize(
    "words", [("balance",), ("models",), ("usage",), ("keys", "list"), ("whoami",), ("embed", "x")]
)
def test_an_answer_that_makes_no_sense_is_a_sentence(tmp_path: Path, body: bytes, words: tuple[str, ...]) -> None:
    with answering(response(body)) as url:
        result = run(tmp_path, *words, "--url", url, "--api-key", "fh_x")
    assert "Traceback" not in result.output
    assert result.exit_code in (0, 1)
    if result.exit_code == 1:
        assert result.stderr.startswith("freehold: ")


@pytest.mark.parametrize(
    "words",
    [
        ("nonsense",),
        ("chat", "hello", "--max-tokens", "0"),
        ("mint", "1e3", "--from", "alice", "--url", "http://127.0.0.1:1"),
        ("mint", "0", "--from", "alice", "--url", "http://127.0.0.1:1"),
        ("deposit", "0.0000001", "--from", "alice", "--url", "http://127.0.0.1:1"),
        ("grant", "1", "-5", "--url", "http://127.0.0.1:1"),
        ("unstake", "diem", "--from", "alice", "--url", "http://127.0.0.1:1"),
        ("unstake", "hold", "1", "--cancel", "2", "--from", "alice", "--url", "http://127.0.0.1:1"),
        ("usage", "--csv", "--json", "--url", "http://127.0.0.1:1"),
        ("keys", "update", "1", "--url", "http://127.0.0.1:1", "--api-key", "fh_x"),
        ("redirect", "1", "--from", "alice", "--url", "http://127.0.0.1:1"),
        ("transfer", "1", "euro", "bob", "--from", "alice", "--url", "http://127.0.0.1:1"),
    ],
)
def test_a_command_line_that_is_not_understood_is_exit_code_2(tmp_path: Path, words: tuple[str, ...]) -> None:
    result = run(tmp_path, *words)
    assert result.exit_code == 2, result.output
    assert "Traceback" not in result.output


def test_an_empty_stdin_is_nothing_to_ask(tmp_path: Path) -> None:
    assert run(tmp_path, "chat", "--url", "http://127.0.0.1:1", "--api-key", "fh_x", stdin="").exit_code == 2


def test_wallets_by_name_are_refused_on_any_chain_but_the_development_chain(tmp_path: Path) -> None:
    chain = b'{"chain_id": 1, "rpc_url": null, "operator": "0x0", "contracts": {}, "confirmations": 12}'
    with answering(response(chain)) as url:
        said = refused(run(tmp_path, "mint", "1", "--from", "alice", "--url", url))
    assert "402031" in said
    assert "chain 1;" in said


def test_a_wallet_has_to_be_named(tmp_path: Path) -> None:
    chain = (
        b'{"chain_id": 402031, "rpc_url": "http://127.0.0.1:1", "operator": "0x0", "contracts": {}, "confirmations": 2}'
    )
    with answering(response(chain)) as url:
        result = run(tmp_path, "mint", "1", "--url", url)
    assert result.exit_code == 2
    assert "--from" in result.stderr


def test_a_node_that_is_down_is_a_sentence(tmp_path: Path) -> None:
    chain = (
        b'{"chain_id": 402031, "rpc_url": "http://127.0.0.1:1", "operator": "0x0", "contracts": {}, "confirmations": 2}'
    )
    with answering(response(chain)) as url:
        assert "node" in refused(run(tmp_path, "mint", "1", "--from", "alice", "--url", url))


def test_every_kind_of_error_becomes_a_sentence() -> None:
    assert isinstance(sentence(AmountError("bad")), click.UsageError)
    assert sentence(LedgerUnavailable(reason="it is away")).format_message().startswith("The ledger can't be reached")
    assert sentence(PermissionError(13, "Permission denied", "/x")).format_message() == "/x: permission denied."
    assert "please report it" in sentence(KeyError("oops")).format_message()


def command(tmp_path: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("FREEHOLD_")}
    return {**kept, "XDG_CONFIG_HOME": str(tmp_path)}


def test_ctrl_c_ends_a_command_without_a_traceback(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        process = subprocess.Popen(
            [sys.executable, "-m", "freehold.cli", "status", "--url", url],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=command(tmp_path),
        )
        silent.settimeout(60)
        connection, _ = silent.accept()
        with connection:
            process.send_signal(signal.SIGINT)
            _, said = process.communicate(timeout=60)
    assert process.returncode == 1
    assert b"Traceback" not in said
    assert b"Aborted!" in said


def test_a_reader_that_leaves_ends_a_command_quietly(tmp_path: Path) -> None:
    with answering(STATUS) as url:
        process = subprocess.Popen(
            [sys.executable, "-m", "freehold.cli", "status", "--json", "--url", url],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=command(tmp_path),
        )
        assert process.stdout is not None and process.stderr is not None
        process.stdout.close()
        with process.stderr:
            said = process.stderr.read()
        process.wait(60)
    assert (process.returncode, said) == (1, b"")


@pytest.mark.parametrize(("asked", "escapes"), [({"NO_COLOR": "1"}, False), ({}, True)])
def test_no_color_on_a_terminal_means_no_escape_codes(tmp_path: Path, asked: dict[str, str], escapes: bool) -> None:
    prices = b'{"version": 1, "data": [{"model": "m", "input_usd_per_million": "1"}]}'
    ours, theirs = pty.openpty()
    env = {**{name: value for name, value in command(tmp_path).items() if name != "NO_COLOR"}, "TERM": "xterm", **asked}
    with answering(response(prices)) as url:
        subprocess.run(
            [sys.executable, "-m", "freehold.cli", "prices", "show", "--url", url], stdout=theirs, env=env, check=True
        )
    shown = os.read(ours, 65_536)
    os.close(ours)
    os.close(theirs)
    assert b"Version 1 of the book" in shown
    assert (b"\x1b" in shown) is escapes
