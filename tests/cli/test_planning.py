"""`freehold plan` and `freehold backtest` on files, as a person runs them."""

import csv
import gzip
import io
import json
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
from click.testing import CliRunner, Result

from freehold.cli.root import cli
from freehold.planner.model import Plan
from freehold.planner.report.document import schema

from .conftest import Server


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(cli, [str(each) for each in arguments])


def plan(*arguments: str | Path) -> Any:
    """The plan's document."""
    result = run("plan", "--paths", "300", "--json", *arguments)
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


@pytest.fixture
def costs(tmp_path: Path) -> Path:
    """A table with a time and a cost: 28 days, two dollars each."""
    rows = [f"2026-10-{day:02d}T09:00:00Z,2.00" for day in range(1, 29)]
    file = tmp_path / "usage.csv"
    file.write_text("time,cost_usd\n" + "\n".join(rows) + "\n")
    return file


def series(folder: Path) -> Path:
    """Three clients' days: always on, seldom, never."""
    for client, on in (
        ("always", lambda day: True),
        ("seldom", lambda day: day % 7 == 0),
        ("never", lambda day: False),
    ):
        rows = ["t,rate,cv,family,p1,p2"] + [f"{day * 86_400},{0.5 if on(day) else 0},1,gamma,1,1" for day in range(28)]
        (folder / f"{client}.csv").write_text("\n".join(rows) + "\n")
    return folder


def test_the_answer_comes_first_and_fits_eighty_columns(costs: Path) -> None:
    result = run("plan", costs, "--price", "183", "--paths", "300")
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[0] == "Hold 2 DIEM"
    assert any(line.startswith("flips at") for line in lines[:10])
    assert [line for line in lines if len(line.rstrip()) > 80] == []


def test_the_json_keeps_to_the_schema_and_names_every_default(costs: Path) -> None:
    read = plan(costs, "--price", "183", "--horizon", "12w")
    jsonschema_rs.validator_for(schema(Plan, "plan")).validate(read)
    assert read["decision"] == "hold" and read["size"] == 2
    assert read["assumptions"]["horizon_days"] == 84
    given = {each["name"] for each in read["assumed"] if not each["default"]}
    assert given == {"diem_price", "horizon_days", "paths"}


def test_page_and_sheet_are_written(costs: Path, tmp_path: Path) -> None:
    page, sheet = tmp_path / "plan.html", tmp_path / "flows.csv"
    plan(costs, "--price", "183", "--html", page, "--csv", sheet)
    assert "<h1>Hold 2 DIEM</h1>" in page.read_text("utf-8")
    rows = list(csv.DictReader(io.StringIO(sheet.read_text())))
    assert {row["policy"] for row in rows} == {"rent", "mixed"}


def test_a_file_in_gzip_says_the_same(costs: Path, tmp_path: Path) -> None:
    packed = tmp_path / "whatever"
    packed.write_bytes(gzip.compress(costs.read_bytes()))
    mine, its = plan(costs, "--price", "90"), plan(packed, "--price", "90")
    assert (mine["size"], mine["saving"]) == (its["size"], its["saving"])


def test_a_bad_row_is_named_and_nothing_is_taken(costs: Path) -> None:
    costs.write_text(costs.read_text() + "2026-10-29T09:00:00Z,much\n")
    refused = run("plan", costs, "--price", "183")
    assert refused.exit_code == 1
    assert "usage.csv, line 30" in refused.stderr and "'much'" in refused.stderr.replace('"', "'")
    left_out = run("plan", costs, "--price", "183", "--paths", "300", "--skip-bad-rows")
    assert left_out.exit_code == 0 and "1 bad row" in left_out.stdout


def test_without_a_price_it_is_asked_for(costs: Path) -> None:
    refused = run("plan", costs)
    assert refused.exit_code == 2 and "--price" in refused.stderr
    both = run("plan", costs, "--price", "1", "--from-chain")
    assert both.exit_code == 2
    nothing = run("plan", "--price", "1")
    assert nothing.exit_code == 2 and "--live" in nothing.stderr


@pytest.mark.parametrize(
    ("option", "value", "named"),
    [
        ("--horizon", "soon", "90d"),
        ("--fee", "a lot", "30%"),
        ("--fee", "3", "fee"),
        ("--currency", "EUR", "EUR=0.92"),
        ("--gpu", "cheap", "2.5:1800:0.6"),
        ("--commitment", "half", "30%"),
        ("--model-price", "m=1", "MODEL=IN,OUT"),
        ("--lease", "1.5", "lease"),
    ],
)
def test_what_cant_be_is_refused_with_its_mend(costs: Path, option: str, value: str, named: str) -> None:
    refused = run("plan", costs, "--price", "183", option, value)
    assert refused.exit_code in (1, 2)
    assert named in refused.stderr
    assert "Traceback" not in refused.output


def test_shares_may_be_per_cent_and_amounts_in_another_currency(costs: Path) -> None:
    assert plan(costs, "--price", "183", "--fee", "2%")["assumptions"]["fee"] == 0.02
    shown = run("plan", costs, "--price", "183", "--paths", "300", "--currency", "EUR=0.5").stdout
    assert "cost of a DIEM-day (κ)" in shown and " EUR" in shown


def test_alternatives_are_compared(costs: Path) -> None:
    read = plan(costs, "--price", "183", "--commitment", "30%:1y", "--gpu", "0.05:1000:0.6")
    names = {each["name"] for each in read["alternatives"]}
    assert any("commitment" in name for name in names) and any("GPU" in name for name in names)
    assert read["alternatives"] == sorted(read["alternatives"], key=lambda each: each["cost"])


def test_tokens_are_priced_by_their_model_or_by_what_is_stated(tmp_path: Path) -> None:
    file = tmp_path / "tokens.csv"
    file.write_text("time,model,input_tokens,output_tokens\n2026-10-01T00:00:00Z,my-own,1000000,500000\n")
    read = plan(file, "--price", "183", "--model-price", "my-own=2,4")
    assert read["unit"] == "USD" and read["mean_daily_demand"] == pytest.approx(4.0)
    assert plan(file, "--price", "183")["unit"] == "mean days"


def test_every_part_of_the_answer_is_in_the_terminal(tmp_path: Path) -> None:
    days = [f"2026-10-{day:02d}T09:00:00Z,{1 + day % 3}.00" for day in (1, 2, 3, 4, 8, 9, 10)]
    file = tmp_path / "usage.csv"
    file.write_text("time,cost_usd\n" + "\n".join([*days, "2026-10-11T09:00:00Z,much"]) + "\n")
    result = run("plan", file, "--price", "90", "--paths", "300", "--skip-bad-rows", "--commitment", "30%:1y")
    assert result.exit_code == 0, result.output
    for part in (
        "! ", "Usage of the last 10 days", "^ above the allowance of", "Cost over 365 days", "clairvoyant",
        "What flips the decision", "Payback and liquidation", "hangs on", "█", "Each risk alone", "Worst cases",
        "Other ways to be served", "If usage can't be foreseen", "Assumption", "diem_price", "Rests on 10 days, 7 of",
        "usage.csv: ", "gap: 2026-10-05 to 2026-10-07, 3 days", "1 row could not be read", "much",
    ):  # fmt: skip
        assert part in result.stdout, part


def test_list_prices_that_have_fallen_may_fall_again(costs: Path, tmp_path: Path) -> None:
    fallen = tmp_path / "prices.csv"
    seen = [f"2026-{month:02d}-01,maker,model,{64 / 2**month},{64 / 2**month}" for month in range(1, 7)]
    fallen.write_text("observed_date,provider,model,input_usd_per_mtok,output_usd_per_mtok\n" + "\n".join(seen) + "\n")
    steady, falling = plan(costs, "--price", "183"), plan(costs, "--price", "183", "--list-prices", fallen)
    rent = [next(each for each in made["costs"] if each["name"] == "rent") for made in (steady, falling)]
    assert rent[1]["spread"]["p50"] < rent[0]["spread"]["p50"] / 2


def test_a_backtest_compares_the_policies_over_clients(tmp_path: Path) -> None:
    result = run("backtest", series(tmp_path), "--carry", "0.5", "--json")
    assert result.exit_code == 0, result.output
    read = json.loads(result.stdout)
    policies = {each["name"]: each for each in read["policies"]}
    assert set(policies) == {"rent", "hold", "online", "randomised", "trusting", "clairvoyant"}
    assert policies["rent"]["cost"] >= policies["clairvoyant"]["cost"] > 0
    clients = {each["client"]: each for each in read["clients"]}
    assert clients["always"]["diem"]["clairvoyant"] == 43_200  # half a request a second, all day
    assert sum(each["diem"]["clairvoyant"] == 0 for each in read["clients"]) == 2


def test_a_backtest_says_who_had_best_held_nothing(tmp_path: Path) -> None:
    said = run("backtest", series(tmp_path), "--carry", "0.5").stdout
    assert "2 clients had best held nothing." in said
    assert [line for line in said.splitlines() if len(line.rstrip()) > 80] == []


def test_a_backtest_needs_the_cost_of_a_diem_day(tmp_path: Path) -> None:
    refused = run("backtest", series(tmp_path))
    assert refused.exit_code == 2 and "--carry" in refused.stderr


def test_live_advice_comes_from_the_servers_charges_of_past_days(server: Server) -> None:
    made = server.json("accounts", "create", "planning")
    account_id = str(made["account"]["id"])
    server.json("grant", account_id, "1", "--id", "planning")
    refused = server.run("plan", "--live", "--price", "183", "--account", account_id)
    assert refused.exit_code == 1 and "ask again tomorrow" in refused.stderr
