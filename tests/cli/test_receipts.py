"""Receipts, from a call to the chain's root, by the command line alone."""

import json
import time
from pathlib import Path
from typing import Any

from tests.cli.conftest import Server
from tests.cli.webserver import answering, response


def published(server: Server, day: str) -> None:
    """Wait until the server has closed the day and put it on the chain."""
    until = time.monotonic() + 90
    while True:
        found = {row["day"] for row in server.json("books", "days")["data"] if row["published"]}
        if day in found:
            return
        assert time.monotonic() < until, "the day isn't published"
        time.sleep(0.5)


def written(server: Server, path: Path, *words: str) -> dict[str, Any]:
    """What a command writes into a file."""
    result = server.run(*words)
    assert result.exit_code == 0, result.output
    path.write_text(result.stdout)
    return dict(json.loads(result.stdout))


def test_a_receipt_verifies_against_the_chain_once_its_day_is_over(server: Server, tmp_path: Path) -> None:
    server.lines("chat", "receipts please", "--model", "scripted-echo")
    row = server.json("usage")["data"][0]
    file = tmp_path / "receipt.json"
    written(server, file, "receipt", row["request_id"])
    assert "wasn't closed" in server.refused("verify", str(file), "--data", str(server.data))
    server.json("dev", "advance-day")
    published(server, row["day"])
    receipt = written(server, file, "receipt", row["request_id"])
    rpc = json.loads((server.data / "credentials.json").read_text())["rpc_url"]
    alone = ("verify", str(file), "--rpc", rpc, "--deployment", str(server.data / "deployment.toml"))
    said = server.run(*alone)
    assert said.exit_code == 0, said.output
    for name in ("book", "operator"):
        assert receipt[name] in said.stdout
    assert "in the root of that day on the chain" in said.stdout
    assert server.json(*alone)["verified"] is True
    forged = {**receipt, "receipt": {**receipt["receipt"], "cost_nano": receipt["receipt"]["cost_nano"] + 1}}
    file.write_text(json.dumps(forged))
    assert "was changed" in server.refused(*alone)
    file.write_text(json.dumps({**receipt, "operator": "0x" + "55" * 20}))
    assert "is of operator" in server.refused(*alone)

    bill = tmp_path / "bill.json"
    both = written(server, bill, "bill", "--month", row["day"][:7], "--receipts")
    proven = server.json("verify", "--bill", str(bill), "--rpc", rpc, "--data", str(server.data))
    assert proven["proven"] + proven["signed_only"] == both["bill"]["calls"] == len(both["receipts"])
    assert proven["proven"] >= 1
    bill.write_text(json.dumps({**both, "receipts": both["receipts"][1:]}))
    assert "don't sum" in server.refused("verify", "--bill", str(bill), "--rpc", rpc, "--data", str(server.data))
    assert server.json("books", "check")["balanced"] is True
    assert ((server.data / "receipts.key").stat().st_mode & 0o777) == 0o600


def test_a_day_that_stands_wrongly_on_the_chain_is_shouted(server: Server) -> None:
    purse = {"used_nano": 5}
    right = {"day": "2027-01-15", "count": 1, "totals": {"promo": purse}, "root": "0x" + "11" * 32}
    rows = [
        {**right, "published": True, "published_root": right["root"]},
        {**right, "day": "2027-01-16", "published": False, "published_root": "0x" + "22" * 32},
        {**right, "day": "2027-01-17", "published": False, "published_root": None},
    ]
    with answering(response(json.dumps({"data": rows, "next_before": None}).encode())) as url:
        shown = server.run("books", "days", "--url", url)
    assert [line.split()[3] for line in shown.stdout.splitlines() if line.strip().startswith("2027")] == [
        "yes",
        "WRONG",
        "no",
    ]
    assert "otherwise than it was closed" in shown.stderr


def test_what_is_no_receipt_is_refused_in_a_sentence(server: Server, tmp_path: Path) -> None:
    file = tmp_path / "other.json"
    for text, said in (("nonsense", "not JSON"), ("{}", "has no freehold_receipt"), ("[1]", "not an object")):
        file.write_text(text)
        assert said in server.refused("verify", str(file), "--data", str(server.data))
    assert server.run("verify").exit_code == 2
    assert "no bill" in server.refused("verify", "--bill", str(file), "--data", str(server.data))
