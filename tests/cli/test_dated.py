"""Dated capacity, rewards and governance from the command line, on one development chain."""

from decimal import Decimal

import pytest

from .conftest import Server


@pytest.fixture(scope="module")
def owner(server: Server) -> str:
    """A wallet with 6 DIEM."""
    server.json("dev", "fund", "erin")
    server.json("stake", "hold", "1000", "--from", "erin")
    server.json("mint", "6", "--from", "erin")
    return "erin"


def month(server: Server, ahead: int = 0) -> str:
    """The chain's running month, or one that follows."""
    year, number = map(int, server.json("status")["status"]["ledger_time"][:7].split("-"))
    year, number = divmod(year * 12 + number - 1 + ahead, 12)
    return f"{year:04d}-{number + 1:02d}"


def series(server: Server, who: str) -> dict[str, tuple[str, str]]:
    """Strips and principal by month."""
    return {
        row["month"]: (row["strips"], row["principal"])
        for row in server.json("strips", "show", "--from", who)["series"]
    }


def test_diem_is_split_sent_and_merged(server: Server, owner: str) -> None:
    now, then = month(server), month(server, 1)
    made = server.json("strips", "split", "3", "--to", then, "--from", owner)
    assert (made["first"], made["last"], made["amount"]) == (now, then, "3")
    assert series(server, owner) == {now: ("3", "0"), then: ("3", "3")}
    server.json("strips", "send", "1", "frank", "--of", then, "--from", owner)
    assert series(server, "frank") == {then: ("1", "0")}
    server.json("strips", "send", "1", owner, "--of", then, "--from", "frank")
    server.json("strips", "merge", "3", "--to", then, "--from", owner)
    assert series(server, owner) == {}
    assert Decimal(server.json("wallet", "--from", owner)["diem"]) == 6


def test_activated_strips_are_a_purse_and_can_be_redirected(server: Server, owner: str) -> None:
    then = month(server, 1)
    server.json("strips", "split", "2", "--to", then, "--from", owner)
    made = server.json("strips", "activate", "2", "--of", then, "--for", "default", "--from", owner)
    assert (made["today"], made["onward"]) == ("2", "2")
    moved = server.json("strips", "redirect", "1", "--of", then, "--for", "default", "--to", owner, "--from", owner)
    assert moved["effective_at"] == f"{then}-01T00:00:00Z"
    held = {(row["month"], row["amount"]) for row in server.json("strips", "show", "--from", owner)["activated"]}
    assert held == {(then, "1")}
    said = server.run("strips", "show", "--from", owner).stdout
    assert said.count(then) == 3  # the principal, and two beneficiaries


def test_strips_refuse_in_words(server: Server, owner: str) -> None:
    then = month(server, 1)
    assert "can be redeemed from" in server.refused("strips", "redeem", "1", "--of", then, "--from", owner)
    assert "DIEM" in server.refused("strips", "split", "1000", "--to", then, "--from", owner)
    assert server.run("strips", "split", "1", "--to", "soon", "--from", owner).exit_code == 2
    assert server.run("strips", "redirect", "1", "--of", then, "--from", owner).exit_code == 2
    server.refused("strips", "split", "1", "--to", "2200-01", "--from", owner)


def test_a_stake_earns_and_is_claimed(server: Server, owner: str) -> None:
    before = Decimal(server.json("wallet", "--from", owner)["hold"])
    claimed = server.json("claim", "--from", owner)
    assert Decimal(claimed["amount"]) > 0
    assert Decimal(server.json("wallet", "--from", owner)["hold"]) == before + Decimal(claimed["amount"])
    server.json("dev", "fund", "frank")  # blocks pass
    again = server.json("claim", "--restake", "--from", owner)
    assert again["restaked"] is True
    assert Decimal(again["staked"]) == Decimal(claimed["staked"]) + Decimal(again["amount"])
    assert "earned nothing" in server.refused("claim", "--from", "operator")


def test_governance_shows_parameters_and_coverage(server: Server) -> None:
    read = server.json("governance")
    operator = next(row for row in read["operators"] if Decimal(row["committed"]) > 0)
    assert operator["committed"] == read["total_committed"]
    assert operator["coverage"] is None or operator["coverage"] > 1
    assert Decimal(read["emission_per_second"]) <= Decimal(read["emission_ceiling"])
    assert read["changes"][-1]["state"] == "done"
    said = server.run("governance").stdout
    assert operator["address"] in said and "delay 0 s" in said


def test_a_change_is_proposed_executed_and_seen(server: Server) -> None:
    operator = server.json("governance")["operators"][0]
    proposed = server.json("governance", "propose", "committed", operator["address"], "41000", "--from", "deployer")
    waiting = server.json("governance")["changes"][0]
    assert (waiting["id"], waiting["state"]) == (proposed["id"], "ready")
    assert waiting["calls"][0]["function"] == "setCommitted"
    assert "setCommitted" in server.run("governance").stdout
    server.json("governance", "execute", proposed["id"][:12], "--from", "deployer")
    assert server.json("governance")["operators"][0]["committed"] == "41000"
    assert "is done" in server.refused("governance", "execute", proposed["id"], "--from", "deployer")


def test_an_operator_is_registered_with_its_url(server: Server) -> None:
    other, signer = "0x" + "22" * 20, "0x" + "33" * 20
    change = server.json(
        "governance", "propose", "operator", other, "https://two.example", signer, "--from", "deployer"
    )
    server.json("governance", "execute", change["id"], "--from", "deployer")
    (found,) = [row for row in server.json("governance")["operators"] if row["address"] == other]
    assert (found["url"], found["receipt_signer"], found["committed"]) == ("https://two.example", signer, "0")


def test_a_change_that_is_cancelled_never_happens(server: Server) -> None:
    before = server.json("governance")["treasury"]
    proposed = server.json("governance", "propose", "treasury", "0x" + "11" * 20, "--from", "deployer")
    server.json("governance", "cancel", proposed["id"], "--from", "deployer")
    assert server.json("governance")["changes"][0]["state"] == "cancelled"
    assert "is cancelled" in server.refused("governance", "execute", proposed["id"], "--from", "deployer")
    assert server.json("governance")["treasury"] == before


def test_only_a_proposer_proposes(server: Server) -> None:
    assert "no such right" in server.refused("governance", "propose", "emission", "0.1", "--from", "frank")
    assert "No change" in server.refused("governance", "execute", "0x1234567890", "--from", "deployer")
    too_much = server.json("governance", "propose", "emission", "2", "--from", "deployer")
    assert "ceiling" in server.refused("governance", "execute", too_much["id"], "--from", "deployer")
    server.json("governance", "cancel", too_much["id"], "--from", "deployer")
