"""Trading from the command line, on a server that was started with pools."""

import json
import urllib.error
import urllib.request
from decimal import Decimal
from pathlib import Path

import pytest

from .conftest import Server

pytestmark = pytest.mark.timeout(1_200)  # the first test of all fetches and compiles


@pytest.fixture(scope="module")
def trader(market_server: Server) -> str:
    """A wallet with 1,000 USDC."""
    market_server.json("dev", "fund", "carol")
    return "carol"


def usdc(server: Server, who: str) -> Decimal:
    return Decimal(server.json("wallet", "--from", who)["usdc"])


def test_diem_is_bought_and_sold_as_it_was_quoted(market_server: Server, trader: str) -> None:
    before = usdc(market_server, trader)
    quoted = market_server.json("trade", "buy", "2", "--quote")
    assert (quoted["side"], quoted["token"], quoted["received"]) == ("buy", "DIEM", "2")
    assert Decimal(quoted["paid"]) < Decimal(quoted["most_paid"]) <= Decimal(quoted["paid"]) * Decimal("1.005")
    assert 0 < Decimal(quoted["price_impact"]) < Decimal("0.01")
    bought = market_server.json("trade", "buy", "2", "--from", trader, "--yes")
    assert (bought["paid"], bought["received"], bought["paid_token"]) == (quoted["paid"], "2", "USDC")
    assert usdc(market_server, trader) == before - Decimal(bought["paid"])
    said = market_server.run("trade", "sell", "100", "diem", "--usdc", "--from", trader, "--yes")
    assert said.exit_code == 0, said.output
    assert "price impact  0." in said.stdout
    assert f"{trader} has sold about 0.5" in said.stdout
    assert " DIEM for 100 USDC, 1" in said.stdout
    assert usdc(market_server, trader) == before - Decimal(bought["paid"]) + 100


def test_nothing_is_sent_before_somebody_agrees(market_server: Server, trader: str) -> None:
    before = usdc(market_server, trader)
    for answer in ("n\n", ""):
        refused = market_server.run("trade", "buy", "1", "--from", trader, stdin=answer)
        assert refused.exit_code == 1
        assert "receive       1 DIEM" in refused.stderr
        assert "refused when it comes out more than 0.5 % worse" in refused.stderr
        assert "Nothing was sent. --yes does it without asking." in refused.stderr
    assert usdc(market_server, trader) == before
    agreed = market_server.run("trade", "buy", "0.1", "--from", trader, "--slippage", "1%", stdin="y\n")
    assert agreed.exit_code == 0, agreed.output
    assert usdc(market_server, trader) < before


def test_a_trade_that_moves_the_price_far_is_warned_of(market_server: Server) -> None:
    said = market_server.run("trade", "sell", "100", "--quote").stdout
    assert "that is much: trade less at a time" in said
    assert "that is much" not in market_server.run("trade", "sell", "1", "--quote").stdout


def test_trades_are_refused_in_words(market_server: Server, trader: str) -> None:
    poor = market_server.refused("trade", "buy", "100", "--from", trader, "--yes")
    assert poor.startswith("carol has ")
    assert "`freehold dev fund` gives some." in poor
    assert "There is no pool of 'doge'" in market_server.refused("trade", "buy", "1", "doge", "--quote")
    for wrong in ("0.5", "51%", "-1%", "much%"):
        refused = market_server.run("trade", "buy", "1", "--slippage", wrong, "--quote")
        assert refused.exit_code == 2
        assert "is not a slippage such as 0.5%" in refused.stderr


def test_without_pools_trading_says_how_to_get_them(server: Server) -> None:
    assert "`freehold dev defi` makes them" in server.refused("trade", "buy", "1", "--quote")


def test_liquidity_is_added_shown_and_taken_out(market_server: Server, trader: str) -> None:
    market_server.json("trade", "buy", "1", "--from", trader, "--yes")
    refused = market_server.run("pool", "add", "0.5", "--from", trader, stdin="n\n")
    assert "carol is about to add at most 0.5 DIEM and 9" in refused.stderr
    added = market_server.json("pool", "add", "0.5", "--range", "100:400", "--from", trader, "--yes")
    assert (added["token"], added["whole_range"]) == ("DIEM", False)
    assert abs(Decimal(added["amount"]) - Decimal("0.5")) < Decimal("1e-6")
    shown = market_server.json("pool", "--from", trader)
    assert [pool["token"] for pool in shown["pools"]] == list(market_server.json("dev", "defi")["pools"])
    (position,) = shown["positions"]
    assert (position["id"], position["active"]) == (added["position"], True)
    number = str(added["position"])
    assert "every price" not in market_server.run("pool", "--from", trader).stdout
    assert "has earned nothing yet" in market_server.refused("pool", "collect", number, "--from", trader, "--yes")
    said = market_server.run("pool", "remove", number, "--from", trader, "--yes").stdout
    assert f"from position {number}" in said
    assert "the position is closed" in said
    assert market_server.json("pool", "--from", trader)["positions"] == []
    assert "there is no such position" in market_server.refused("pool", "remove", number, "--from", trader, "--yes")


def test_a_range_is_two_prices(market_server: Server, trader: str) -> None:
    for wrong in ("200", "200:100", "0:100", "a:b", "nan:100"):
        refused = market_server.run("pool", "add", "1", "--range", wrong, "--from", trader)
        assert refused.exit_code == 2
        assert "is no range of prices such as 150:220" in refused.stderr


def test_a_plan_takes_the_pools_price_and_says_so(market_server: Server, tmp_path: Path) -> None:
    usage = tmp_path / "usage.csv"
    usage.write_text("date,cost\n" + "".join(f"2026-10-{day},{day}\n" for day in range(10, 30)))
    words = ("plan", str(usage), "--from-chain", "--paths", "100")
    read = market_server.json(*words)
    (price,) = [each for each in read["assumed"] if each["name"] == "diem_price"]
    assert 170 < price["value"] < 196
    assert price["value"] == read["assumptions"]["diem_price"]
    pool = market_server.json("dev", "defi")["pools"]["DIEM"]["address"]
    assert price["source"].startswith(f"the half hour's mean of the Uniswap v3 pool {pool} at 20")
    said = " ".join(market_server.run(*words).stdout.split())
    assert f"diem_price is the half hour's mean of the Uniswap v3 pool {pool} at 20" in said


def test_the_servers_plan_reads_the_pool_too(market_server: Server) -> None:
    kept = json.loads((market_server.data / "credentials.json").read_text())
    request = urllib.request.Request(f"{kept['url']}/v1/plan", headers={"authorization": f"Bearer {kept['api_key']}"})
    with pytest.raises(urllib.error.HTTPError) as refused:  # it has a price, and no day of usage yet
        urllib.request.urlopen(request, timeout=60)
    assert "no day of usage that has ended" in refused.value.read().decode()


def test_without_a_pool_a_plan_asks_for_a_price(server: Server, tmp_path: Path) -> None:
    usage = tmp_path / "usage.csv"
    usage.write_text("date,cost\n2026-10-10,5\n")
    assert "no DIEM/USDC pool to read a price from" in server.refused("plan", str(usage), "--from-chain")


def test_the_curve_prices_each_months_strip_against_diem(market_server: Server, tmp_path: Path) -> None:
    read = market_server.json("curve")
    pools = {pool["token"]: pool["price"] for pool in market_server.json("pool")["pools"]}
    assert read["diem_price"] == pools["DIEM"]
    known = [symbol for symbol in pools if symbol.startswith("DIEM-") and symbol[5:] >= read["chain_time"][:7]]
    assert [row["token"] for row in read["strips"]] == known
    for row in read["strips"]:
        assert row["price"] == pools[row["token"]]
        assert Decimal(row["price_per_credit"]) == pytest.approx(
            Decimal(row["price"]) / Decimal(row["days"]), rel=Decimal("1e-4")
        )
    assert [row["principal"] for row in read["parts"]] == [s for s in pools if s.startswith("pDIEM-")]
    page = tmp_path / "curve.html"
    said = market_server.run("curve", "--html", str(page))
    assert said.exit_code == 0, said.output
    for row in read["strips"]:
        assert f"{row['month']}  █" in said.stdout
        assert f"<th>{row['token']}</th><td>{row['price']}</td>" in page.read_text()
    assert "<svg" in page.read_text()
