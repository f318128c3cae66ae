"""Lending, positions and allocations from the command line: what is asked, shown, refused, and done."""

import re
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import pytest

from .stand import Stand, stand

START_S = 1_800_000_000
"""2027-01-15T08:00:00Z."""
FRANK = "0x9965507D1a55bcC2695C58ba16FB37d819B0A4dc"

pytestmark = pytest.mark.timeout(1_200)  # the first test of all fetches and compiles


@pytest.fixture(scope="module")
def town() -> Iterator[Stand]:
    with stand(START_S) as made:
        for who in ("alice", "bob"):
            made.server.json("dev", "fund", who)
            made.server.json("stake", "hold", "4000", "--from", who)
            made.server.json("mint", "20", "--from", who)
        yield made


@pytest.fixture(scope="module")
def plain() -> Iterator[Stand]:
    """A chain without any pool or market."""
    with stand(START_S, protocols=False) as made:
        yield made


def test_a_loan_is_shown_and_asked_before_it_is_sent(town: Stand) -> None:
    words = ("borrow", "100", "--collateral", "2", "--from", "alice")
    for answer in (None, "n\n"):
        refused = town.server.run(*words, stdin=answer)
        assert refused.exit_code == 1
        assert "alice pledges 2 DIEM and borrows 100 USDC, in 3 transactions." in refused.stderr
        assert (
            "Then: 100 USDC owed against 2 DIEM, LTV 27.32 % of at most 77 %; it is liquidated below" in refused.stderr
        )
        assert "freehold: Nothing was sent. --yes does it without asking." in refused.stderr
    assert town.server.json("health", "--from", "alice")["markets"] == []
    done = town.server.run(*words, stdin="y\n")
    assert done.exit_code == 0, done.output
    assert done.stdout.startswith("alice has pledged 2 DIEM and borrowed 100 USDC.")


def test_health_says_what_is_owed_against_what_and_how_far_its_end_is(town: Stand) -> None:
    town.server.json("borrow", "200", "--collateral", "2", "--from", "bob", "--yes")
    (read,) = town.server.json("health", "--from", "bob")["markets"]
    assert (read["market"], read["collateral"], read["lltv"], read["healthy"]) == ("DIEM", "2", 0.77, True)
    assert read["distance"] == pytest.approx(1 - read["ltv"] / read["lltv"], abs=1e-4)
    assert float(read["liquidation_price"]) == pytest.approx(float(read["debt"]) / 2 / 0.77, rel=1e-6)
    said = town.server.run("health", "--from", "bob").stdout
    for word in (
        "market against DIEM",
        "pledged     2 DIEM, worth",
        "LTV         54.",
        "of at most 77%",
        "liquidated  below",
    ):
        assert word in said
    assert town.server.run("health", "--of", "bob", "--from", "alice").stdout == said
    nobody = town.server.run("health", "--of", FRANK)
    assert "Nothing is lent or owed." in nobody.stdout
    everybody = town.server.run("health", "--everybody").stdout
    assert town.server.json("health", "--of", "bob")["address"] in everybody
    assert max(len(line) for line in everybody.splitlines() if "%" in line) <= 80
    assert "Nobody owes" in town.server.run("health", "--everybody", "--market", next_principal(town)).stdout


def next_principal(town: Stand) -> str:
    return next(symbol for symbol in town.defi.markets if symbol != "DIEM")


def test_a_debt_over_the_limit_is_refused_in_words_with_what_is_allowed(town: Stand) -> None:
    said = town.server.refused("borrow", "400", "--collateral", "1", "--from", "bob", "--yes")
    assert re.match(r"bob asks for 400 USDC, and may borrow \d+(\.\d+)? USDC more: ", said)
    assert "of which 77 % may be owed" in said
    assert "Borrow less, or pledge more with --collateral." in said


def test_repaying_all_leaves_nothing(town: Stand) -> None:
    town.server.json("borrow", "5", "--collateral", "1", "--from", "alice", "--yes")
    done = town.server.json("repay", "all", "--collateral", "all", "--from", "alice", "--yes")
    assert (done["account"]["debt"], done["account"]["collateral"]) == ("0", "0")
    assert Decimal(done["repaid"]) >= 5
    said = town.server.refused("repay", "all", "--from", "alice", "--yes")
    assert said == "alice owes nothing in the market against DIEM."


def test_usdc_is_lent_and_taken_back(town: Stand) -> None:
    lent = town.server.json("lend", "supply", "100", "--from", "bob", "--yes")
    assert (lent["supplied"], lent["market"]) == ("100", "DIEM")
    assert "\nlent  " in town.server.run("health", "--from", "bob").stdout
    back = town.server.run("lend", "withdraw", "all", "--from", "bob", "--yes")
    assert back.stdout.startswith("bob has taken back ")
    assert "in the market against DIEM" in town.server.refused("lend", "withdraw", "all", "--from", "bob", "--yes")


def test_a_wallet_in_a_file_borrows_too(town: Stand, tmp_path: Path) -> None:
    password = tmp_path / "password"
    password.write_text("correct horse\n")
    kept = ("--password-file", str(password))
    made = town.server.json("wallet", "new", "purse", *kept)
    town.server.json("dev", "fund", made["address"])
    town.server.json("transfer", "3", "diem", made["address"], "--from", "alice")
    done = town.server.json("borrow", "50", "--collateral", "3", "--yes", "--wallet", "purse", *kept)
    assert (done["from"], done["account"]["owner"], done["borrowed"]) == ("purse", made["address"], "50")


def test_command_lines_that_say_too_little_are_not_understood(town: Stand) -> None:
    for words in (
        ("borrow",),
        ("repay",),
        ("borrow", "ten"),
        ("lend", "supply", "0"),
        ("liquidate",),
        ("allocate", "bob"),
        ("allocate", "bob=1", "bob=2"),
        ("allocate", "=1"),
    ):
        assert town.server.run(*words, "--from", "alice").exit_code == 2, words
    assert "no market against 'HOLD'; there are DIEM" in town.server.refused(
        "lend", "supply", "1", "--market", "HOLD", "--from", "alice"
    )


def test_without_markets_a_loan_says_how_they_are_made(plain: Stand) -> None:
    said = plain.server.refused("borrow", "1", "--collateral", "1", "--from", "carol", "--yes")
    assert "`freehold dev defi` makes them" in said


def test_a_position_is_shown_without_markets_too(plain: Stand) -> None:
    assert "Nothing yet." in plain.server.run("position", "--from", "carol").stdout
    plain.server.json("dev", "fund", "carol")
    read = plain.server.json("position", "--from", "carol")
    assert [(part["token"], part["amount"], part["market_usd"]) for part in read["parts"]] == [
        ("HOLD", "10000", None),
        ("USDC", "1000", "1000.00"),
    ]
    assert read["totals"] == {
        "face": {"HOLD": "10000", "USDC": "1000"},
        "market_usd": "1000.00",
        "without_market": ["HOLD"],
        "daily_usd": "0",
        "daily_usd_of_others": "0",
    }
    assert "no market" in plain.server.run("position", "--from", "carol").stdout


def test_a_position_at_a_server_elsewhere_says_that_its_markets_are_not_known(town: Stand, tmp_path: Path) -> None:
    shown = town.server.run("position", "--from", "alice", "--url", town.server.url, home=tmp_path)
    assert shown.exit_code == 0, shown.output
    assert "without --data only USDC has a market value here" in shown.stderr
    assert "not in the sum, for they have no market: HOLD, DIEM" in shown.stdout


def test_a_position_has_every_kind_on_one_screen_of_80_columns_and_adds_up(town: Stand) -> None:
    principal = next_principal(town)
    for words in (
        ("stake", "diem", "3"),
        ("stake", "diem", "1", "--for", "alice"),
        ("strips", "split", "3", "--to", principal.removeprefix("pDIEM-")),
        ("strips", "activate", "1", "--of", "2027-01"),
        ("pool", "add", "1", "--yes"),
        ("lend", "supply", "10", "--yes"),
        ("borrow", "20", "--collateral", "1", "--market", principal, "--yes"),
        ("unstake", "diem", "1"),
    ):
        town.server.json(*words, "--from", "bob")
    read = town.server.json("position", "--from", "bob")
    assert list(dict.fromkeys(part["kind"] for part in read["parts"])) == [
        *("wallet", "staked", "earned", "unbonding", "strips", "activated", "principal"),
        *("pooled", "supplied", "pledged", "borrowed"),
    ]
    priced = [Decimal(part["market_usd"]) for part in read["parts"] if part["market_usd"] is not None]
    assert Decimal(read["totals"]["market_usd"]) == sum(priced)
    assert Decimal(read["totals"]["daily_usd"]) == sum(Decimal(part["daily_usd"]) for part in read["parts"]) == 4
    assert read["totals"]["daily_usd_of_others"] == "1"
    for unit, total in read["totals"]["face"].items():
        assert Decimal(total) == sum(Decimal(part["face"]) for part in read["parts"] if part["face_unit"] == unit)
    sources = {part["kind"]: part["source"] for part in read["parts"]}
    assert sources == {
        **dict.fromkeys(("wallet", "earned", "unbonding")),
        **{"staked": "inference", "strips": "discount", "activated": "inference", "principal": "discount"},
        **{"pooled": "fees", "supplied": "interest", "pledged": "discount", "borrowed": "interest"},
    }
    said = town.server.run("position", "--from", "bob").stdout
    assert max(map(len, said.splitlines())) <= 80
    assert "staked DIEM for alice" in said
    assert "1 USD/day go to alice" in said
    for line in (
        "market USD: at the pools' present prices",
        "inference: ",
        "discount: ",
        "interest: ",
        "fees: ",
        "emission: ",
        "sum of face values: ",
    ):
        assert line in said


def test_stakes_are_allocated_by_name_and_move_at_midnight(town: Stand) -> None:
    who = ("--from", "alice")
    assert "alice has no staked DIEM" in town.server.run("allocate", *who).stdout
    town.server.json("stake", "diem", "5", *who)
    asked = town.server.run("allocate", "bob=2", f"{FRANK}=1", *who, stdin="n\n")
    assert "2 DIEM of the stake: from alice to bob." in asked.stderr
    assert "It takes effect at 2027-01-16 00:00:00 UTC" in asked.stderr
    assert [row["amount"] for row in town.server.json("allocate", *who)["seats"]] == ["5"]
    made = town.server.json("allocate", "bob=2", f"{FRANK}=1", "--yes", *who)
    assert made["effective_at"] == "2027-01-16T00:00:00Z"
    assert [row["amount"] for row in made["moves"]] == ["2", "1"]
    seats = {row["beneficiary"]: row for row in town.server.json("allocate", *who)["seats"]}
    assert {row["amount"] for row in seats.values()} == {"2", "1"}
    assert (seats[FRANK]["allowance_today"], seats[FRANK]["allowance_onward"]) == ("0", "1")
    shown = town.server.run("allocate", *who).stdout
    assert "this server's" in shown and "00:00: 2027-01-16 00:00:00 UTC" in shown
    assert max(len(line) for line in shown.splitlines() if "server's" in line) <= 80
    back = town.server.json("allocate", "alice=rest", "--yes", *who)
    assert {row["beneficiary"]: row["amount"] for row in back["seats"] if row["amount"] != "0"} == {
        back["address"]: "5"
    }
    assert "Nothing would change" in town.server.refused("allocate", "alice=5", "--yes", *who)
    assert "9 DIEM are named, and 5 DIEM are staked" in town.server.refused("allocate", "bob=9", "--yes", *who)
    assert "is not a registered operator" in town.server.refused("allocate", f"bob@{FRANK}=1", "--yes", *who)
