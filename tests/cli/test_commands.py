"""Every command against a whole server: a success beside a refusal."""

import csv
import io
import json
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from .conftest import Server

Make = Callable[[str], Any]


def granted(server: Server, made: Any, usd: str = "1") -> str:
    """Give a new account promotional credit; its id."""
    account_id = str(made["account"]["id"])
    server.json("grant", account_id, usd, "--id", f"test-{account_id}")
    return account_id


# --- status, models, prices -------------------------------------------------------------------------------------------


def test_status_tells_ledger_time_chain_and_models(server: Server) -> None:
    read = server.json("status")
    assert read["url"] == server.url
    assert read["status"]["ready"] is True
    assert read["chain"]["chain_id"] == 402031
    said = server.run("status").stdout
    assert "UTC" in said
    assert "402031" in said


def test_models_are_listed_with_their_prices(server: Server) -> None:
    assert "scripted-echo" in {row["id"] for row in server.json("models")["data"]}
    assert "demo" in server.run("models").stdout


def test_a_price_with_tiers_for_later_is_announced_and_in_the_history(server: Server) -> None:
    words = ("prices", "set", "scripted-exact", "--input", "0", "--output", "2", "--reasoning", "3", "--note", "why")
    made = server.json(*words, "--tier", "1000:output=4", "--from", "2099-01-01T00:00:00Z")
    assert made["effective_at"] == "2099-01-01T00:00:00Z"
    assert (
        made["tiers"][0]["reasoning_usd_per_million"] == "3.00"
        and made["tiers"][0]["output_nano_per_million"] == 4 * 10**9
    )
    assert any(row["version"] == made["version"] for row in server.json("prices", "show")["coming"])
    assert "above 1,000" in server.run("prices", "history", "scripted-exact").stdout
    assert server.json("prices", "history", "scripted-exact")["data"][-1]["note"] == "why"
    for wrong in ("1000", "1000:tip=1", "x:input=1", "1000:input"):
        assert server.run(*words, "--tier", wrong).exit_code == 2


def test_books_differ_rate_by_rate_and_a_slip_is_refused_with_near_names(server: Server) -> None:
    before = server.json("prices", "show")["version"]
    after = server.json("prices", "set", "scripted-embedding", "--input", "1.5", "--output", "0")["version"]
    found = server.json("prices", "diff", "--from", str(before), "--to", str(after))["data"]
    assert [(row["model"], row["unit"], row["after_usd_per_million"]) for row in found] == [
        ("scripted-embedding", "input", "1.50")
    ]
    assert "+50.0 %" in server.run("prices", "diff", "--from", str(before), "--to", str(after)).stdout
    assert server.json("prices", "diff")["after"].startswith("genai-prices")
    said = server.refused("prices", "set", "scripted-embeding", "--input", "1")
    assert "scripted-embedding" in said and "--force" in said


def test_a_price_that_is_set_is_shown_and_a_price_of_nonsense_is_refused(server: Server) -> None:
    server.json("prices", "set", "some-model", "--force", "--input", "0.25", "--output", "1.5", "--label", "test")
    row = next(row for row in server.json("prices", "show")["data"] if row["model"] == "some-model")
    assert (row["input_usd_per_million"], row["output_usd_per_million"], row["label"]) == ("0.25", "1.50", "test")
    assert server.run("prices", "set", "some-model", "--input", "cheap").exit_code == 2


# --- calls ------------------------------------------------------------------------------------------------------------


def test_chat_shows_the_answer_on_stdout_and_the_bill_on_stderr(server: Server, account: Make) -> None:
    account_id = granted(server, account("chat"))
    result = server.run("chat", "Good day", "--account", account_id, "--max-tokens", "20")
    assert result.exit_code == 0, result.output
    assert "Good day" in result.stdout
    assert "USD from promo" in result.stderr
    assert "promo 0.99999, prepaid 0.00" in result.stderr


def test_chat_reads_stdin_and_writes_json_lines_that_agree_with_the_receipt(server: Server, account: Make) -> None:
    account_id = granted(server, account("stdin"))
    result = server.run("chat", "--account", account_id, "--system", "Be brief.", "--json", stdin="From a pipe")
    assert result.exit_code == 0, result.output
    *pieces, last = [json.loads(line) for line in result.stdout.splitlines()]
    assert "".join(piece["text"] for piece in pieces) == last["text"]
    receipt = server.json("receipt", last["request_id"], "--account", account_id)
    assert receipt["cost"] == last["cost_usd"]
    assert {leg["source"]: leg["amount"] for leg in receipt["legs"]} == last["purses"]


def test_chat_without_credit_is_refused_with_the_servers_sentence(server: Server, account: Make) -> None:
    account_id = str(account("poor")["account"]["id"])
    assert "may cost up to" in server.refused("chat", "Hello", "--account", account_id)


def test_chat_with_an_unknown_model_names_near_ones(server: Server) -> None:
    assert "scripted-echo" in server.refused("chat", "Hello", "--model", "scripted-ekho")


def test_embed_gives_a_vector_for_each_text(server: Server, account: Make) -> None:
    account_id = granted(server, account("embed"))
    read = server.json("embed", "one", "two", "--account", account_id)
    assert len(read["data"]) == 2
    result = server.run("embed", "one", "--account", account_id)
    assert "dimensions" in result.stdout
    assert "USD from promo" in result.stderr


# --- balance, usage, receipts -----------------------------------------------------------------------------------------


def test_balance_shows_purses_and_when_the_allowance_is_renewed(server: Server) -> None:
    read = server.json("balance")
    assert {purse["source"] for purse in read["purses"]} >= {"allowance", "prepaid"}
    said = server.run("balance").stdout
    assert "allowance" in said
    assert "00:00:00 UTC" in said
    assert "(in " in said


def test_balance_of_an_account_that_is_not_there_is_refused(server: Server) -> None:
    assert "999999" in server.refused("balance", "--account", "999999")
    assert "nobody" in server.refused("balance", "--account", "nobody")


def test_usage_is_the_same_by_call_by_group_and_as_csv(server: Server, account: Make) -> None:
    account_id = granted(server, account("usage"))
    for _ in range(3):
        assert server.run("chat", "count me", "--account", account_id).exit_code == 0
    calls = server.json("usage", "--account", account_id)["data"]
    total = sum(row["cost_nano"] for row in calls)
    assert len(calls) == 3
    for group in ("day", "hour", "model", "key"):
        rows = server.json("usage", "--by", group, "--account", account_id)["data"]
        assert (sum(row["cost_nano"] for row in rows), sum(row["calls"] for row in rows)) == (total, 3)
        assert "promo" in server.run("usage", "--by", group, "--account", account_id).stdout
    text = server.run("usage", "--csv", "--account", account_id).stdout
    assert len(list(csv.DictReader(io.StringIO(text)))) == 3
    assert calls[0]["request_id"] in server.run("usage", "--account", account_id).stdout


def test_usage_refuses_a_time_that_is_none(server: Server) -> None:
    assert "time" in server.refused("usage", "--from", "yesterday")


def test_a_receipt_that_is_not_there_is_refused(server: Server) -> None:
    assert "req_" in server.refused("receipt", "nonsense")
    assert server.refused("receipt", "req_" + "0" * 32)


# --- keys -------------------------------------------------------------------------------------------------------------


def test_a_key_is_created_listed_changed_and_revoked(server: Server, account: Make) -> None:
    account_id = granted(server, account("keys"))
    made = server.json(
        "keys", "create", "laptop", "--day-cap", "0.5", "--model", "scripted-echo", "--account", account_id
    )
    key_id = str(made["id"])
    assert made["secret"].startswith("fh_")
    assert server.run("chat", "Hi", "--api-key", made["secret"]).exit_code == 0
    changed = server.json("keys", "update", key_id, "--day-cap", "none", "--name", "desk", "--account", account_id)
    assert (changed["name"], changed["day_cap_usd"]) == ("desk", None)
    listed = server.run("keys", "list", "--account", account_id).stdout
    assert "desk" in listed
    assert made["secret"] not in listed
    server.json("keys", "revoke", key_id, "--account", account_id)
    assert "revoked" in server.refused("chat", "Hi", "--api-key", made["secret"])


def test_a_keys_month_and_rates_are_limited_and_freed(server: Server, account: Make) -> None:
    account_id = granted(server, account("rates"))
    limits = ("--month-cap", "3", "--rpm", "60", "--tpm", "none")
    made = server.json("keys", "create", "slow", *limits, "--account", account_id)
    assert (made["month_cap_usd"], made["rpm"], made["tpm"]) == ("3.00", 60, None)
    freed = server.json("keys", "update", str(made["id"]), "--rpm", "none", "--tpm", "9", "--account", account_id)
    assert (freed["month_cap_usd"], freed["rpm"], freed["tpm"]) == ("3.00", None, 9)
    wrong = server.run("keys", "create", "k", "--rpm", "1.5", "--account", account_id)
    assert wrong.exit_code == 2 and "whole number" in wrong.stderr


def test_a_key_that_is_not_there_is_refused(server: Server) -> None:
    assert server.refused("keys", "revoke", "999999")


def test_keys_show_prints_the_key_that_calls_are_made_with(server: Server) -> None:
    key = server.run("keys", "show").stdout.strip()
    assert key == json.loads((server.data / "credentials.json").read_text())["api_key"]


# --- accounts, grants, books ------------------------------------------------------------------------------------------


def test_an_account_that_is_created_is_listed_and_can_be_named(server: Server, account: Make) -> None:
    made = account("by-name")
    assert made["account"]["address"] in {row["address"] for row in server.json("accounts", "list")["data"]}
    assert server.json("balance", "--account", "by-name")["account_id"] == made["account"]["id"]


def test_the_same_grant_is_given_once(server: Server, account: Make) -> None:
    account_id = str(account("twice")["account"]["id"])
    for _ in range(2):
        server.json("grant", account_id, "0.5", "--id", "once")
    assert server.json("balance", "--account", account_id)["available"] == "0.50"
    assert server.refused("grant", "999999", "1")


def test_the_books_balance(server: Server) -> None:
    assert server.json("books", "check")["balanced"] is True
    assert server.run("books", "check").stdout == "The books balance.\n"


def test_the_books_of_a_server_that_does_not_answer_are_checked_in_its_database(server: Server, tmp_path: Path) -> None:
    for name in ("postgres", "run", "lock"):
        (tmp_path / name).symlink_to(server.data / name)
    kept = json.loads((server.data / "credentials.json").read_text())
    (tmp_path / "credentials.json").write_text(json.dumps({**kept, "url": "http://127.0.0.1:1"}))
    result = server.run("books", "check", "--data", str(tmp_path))
    assert (result.exit_code, result.stdout) == (0, "The books balance.\n")
    assert server.run("status", "--data", str(tmp_path)).exit_code == 1


def test_who_is_not_the_operator_is_refused(server: Server, tmp_path: Path) -> None:
    result = server.run("books", "check", "--url", server.url, home=tmp_path)
    assert result.exit_code == 1
    assert "operator's token" in result.stderr


# --- signing in -------------------------------------------------------------------------------------------------------


def test_a_wallet_signs_in_acts_and_signs_out(server: Server) -> None:
    made = server.json("login", "--from", "erin")
    assert stat.S_IMODE((server.home / "freehold" / "logins.json").stat().st_mode) == 0o600
    who = server.json("whoami")
    assert (who["acting_as"], who["account"]["address"]) == ("erin", made["address"])
    assert server.json("account", "use", "default") == {"name": "default"}
    assert server.json("whoami")["acting_as"] == "default"
    assert server.json("balance", "--account", "erin")["account_id"] == made["account_id"]
    assert server.json("logout", "--from", "erin") == {"name": "erin", "signed_in": False}
    assert "not signed in" in server.refused("logout", "--from", "erin")


def test_a_wallet_that_is_none_cannot_sign_in(server: Server) -> None:
    assert "alice" in server.refused("login", "--from", "mallory")


def test_an_account_that_is_not_known_cannot_be_used(server: Server) -> None:
    assert server.refused("account", "use", "mallory")


# --- the chain --------------------------------------------------------------------------------------------------------


def test_a_wallet_stakes_mints_burns_and_leaves(server: Server) -> None:
    server.json("dev", "fund", "carol")
    assert server.json("stake", "hold", "500", "--from", "carol")["amount"] == "500"
    minted = server.json("mint", "2", "--from", "carol")
    assert minted["diem_out"] == "2"
    assert "less than 400" in server.refused("burn", "1", "--min-unlock", "400", "--from", "carol")
    assert float(server.json("burn", "0.5", "--from", "carol")["unlocked"]) == pytest.approx(float(minted["cost"]) / 4)
    asked = server.json("unstake", "hold", "10", "--from", "carol")
    assert "can be withdrawn at" in server.refused("withdraw", "hold", str(asked["id"]), "--from", "carol")
    assert server.json("unstake", "hold", "--cancel", str(asked["id"]), "--from", "carol")["amount"] == "10"
    assert "needs" in server.refused("mint", "1000", "--from", "carol")
    assert "500 staked" in server.run("wallet", "--from", "carol").stdout


def test_staked_diem_is_redirected_and_unstaked(server: Server, account: Make) -> None:
    made = account("beneficiary")
    account_id, address = str(made["account"]["id"]), made["account"]["address"]
    server.json("dev", "fund", "dave")
    server.json("stake", "hold", "200", "--from", "dave")
    server.json("mint", "1", "--from", "dave")
    staked = server.json("stake", "diem", "0.2", "--for", account_id, "--from", "dave")
    assert (staked["beneficiary"], staked["onward"]) == (address, "0.2")
    moved = server.json("redirect", "0.05", "--for", account_id, "--to", "dave", "--from", "dave")
    assert moved["effective_at"].endswith("T00:00:00Z")
    asked = server.json("unstake", "diem", "0.1", "--for", "beneficiary", "--from", "dave")
    assert "can be withdrawn at" in server.refused("withdraw", "diem", str(asked["id"]), "--from", "dave")
    assert server.json("unstake", "diem", "--cancel", str(asked["id"]), "--from", "dave")["amount"] == "0.1"
    assert "position" in server.refused("unstake", "diem", "5", "--for", account_id, "--from", "dave")
    holdings = server.json("wallet", "--from", "dave")
    assert {stake["amount"] for stake in holdings["stakes"]} == {"0.15", "0.05"}


def test_tokens_are_sent_and_usdc_is_deposited(server: Server, account: Make) -> None:
    made = account("prepaid")
    server.json("dev", "fund", "frank")
    sent = server.json("transfer", "5", "usdc", "erin", "--from", "frank")
    assert (sent["token"], sent["amount"]) == ("USDC", "5")
    assert server.json("deposit", "0.25", "--for", str(made["account"]["id"]), "--from", "frank")["amount"] == "0.25"
    assert "has" in server.refused("deposit", "1000000", "--from", "frank")
    assert "mallory" in server.refused("transfer", "1", "usdc", "mallory", "--from", "frank")
    assert "address" in server.refused("transfer", "1", "usdc", "0x12", "--from", "frank")


# --- the bill ---------------------------------------------------------------------------------------------------------


def test_a_bill_is_drawn_exported_and_printed(
    server: Server, account: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    account_id = granted(server, account("bill <i>"))
    server.run("chat", "Good day", "--account", account_id, "--max-tokens", "20")
    read = server.json("bill", "--account", account_id)
    assert read["calls"] == 1
    assert read["used_nano"] == sum(row["cost_nano"] for row in server.json("usage", "--account", account_id)["data"])
    monkeypatch.setenv("COLUMNS", "80")
    drawn = server.run("bill", "--month", read["month"], "--account", account_id).stdout
    assert f"Bill of {read['month']} so far: account {account_id} bill <i>" in drawn
    assert f"{read['used']} USD in 1 calls" in drawn
    assert max(map(len, drawn.splitlines())) <= 80
    rows = list(csv.DictReader(io.StringIO(server.run("bill", "--csv", "--account", account_id).stdout)))
    assert sum(int(row["amount_nano"]) for row in rows if row["what"] == "charge") == -read["used_nano"]
    file = tmp_path / "bill.html"
    assert str(file) in server.run("bill", "--html", str(file), "--account", account_id).stdout
    assert "bill &lt;i&gt;" in file.read_text("utf-8")
    assert server.run("bill", "--html", "-", "--account", account_id).stdout == file.read_text("utf-8")


def test_a_bill_of_no_month_or_in_two_forms_is_refused(server: Server, tmp_path: Path) -> None:
    assert "2026-11" in server.refused("bill", "--month", "soon")
    assert "has not begun" in server.refused("bill", "--month", "9998-01")
    assert server.run("bill", "--csv", "--html", str(tmp_path / "bill.html")).exit_code == 2
    assert server.refused("bill", "--html", str(tmp_path / "nowhere" / "bill.html"))


def test_an_empty_bill_says_so(server: Server, account: Make) -> None:
    account_id = str(account("empty bill")["account"]["id"])
    drawn = server.run("bill", "--account", account_id).stdout
    assert "0.00 USD in 0 calls" in drawn
