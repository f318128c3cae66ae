"""The page, the document and the sheet of one plan."""

import csv
import dataclasses
import io
import itertools
import json
import math
import re
import xml.etree.ElementTree as ET
from html.parser import HTMLParser

import jsonschema_rs
import numpy as np
import pytest

from freehold.clock import Day
from freehold.planner.model import Assumptions, Choice, Plan, Unit, Usage
from freehold.planner.planner import plan
from freehold.planner.report import charts
from freehold.planner.report.amounts import Amounts, days, number, of_unit, share
from freehold.planner.report.document import document, schema, with_version
from freehold.planner.report.flows import COLUMNS, sheet
from freehold.planner.report.page import page


@pytest.fixture(scope="module")
def made() -> Plan:
    demand = np.random.default_rng(3).gamma(3, 4, size=40)
    return plan(Usage(first_day=Day(20_000), demand=demand), Assumptions(diem_price=150, paths=500))


@pytest.fixture(scope="module")
def rented() -> Plan:
    demand = np.random.default_rng(3).gamma(3, 4, size=40)
    return plan(Usage(first_day=Day(20_000), demand=demand), Assumptions(diem_price=15_000, hazard=5, paths=500))


class Elements(HTMLParser):
    """Checks that elements close in order, and gathers their attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.attributes: list[tuple[str, dict[str, str | None]]] = []
        self.said = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes.append((tag, dict(attrs)))
        if tag not in ("meta", "br", "line", "rect", "polyline", "polygon"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if tag not in ("rect",):
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.said += data


def test_the_page_answers_first_and_every_element_closes(made: Plan) -> None:
    text = page(made, made_at="2026-11-23")
    elements = Elements(text)
    assert elements.open == []
    heading = re.search(r"<h1>(.*?)</h1>", text)
    assert heading is not None and heading[1] == f"Hold {number(made.size)} DIEM"
    assert made.sentence in elements.said
    assert text.index(made.sentence) < text.index("<svg")


def test_the_page_of_a_renter_says_rent(rented: Plan) -> None:
    assert rented.decision is Choice.RENT
    assert "<h1>Rent: hold no DIEM</h1>" in page(rented, made_at="2026-11-23")


def test_the_page_asks_for_nothing_from_anywhere(made: Plan) -> None:
    elements = Elements(page(made, made_at="2026-11-23"))
    assert not [tag for tag, _ in elements.attributes if tag in ("script", "link", "img", "iframe", "object")]
    assert not [found for _, found in elements.attributes if {"src", "href", "srcset", "data"} & set(found)]
    assert "url(" not in page(made, made_at="2026-11-23")
    assert "@import" not in page(made, made_at="2026-11-23")


def test_every_plot_says_in_words_what_it_shows(made: Plan) -> None:
    found = [each for tag, each in Elements(page(made, made_at="x")).attributes if tag == "svg"]
    assert len(found) == 5
    assert all(each["role"] == "img" and len(each["aria-label"] or "") > 30 for each in found)


def test_text_of_the_input_is_escaped(made: Plan) -> None:
    found = dataclasses.replace(made.provenance, notes=("<b>&",), warnings=("<i>",))
    text = page(dataclasses.replace(made, provenance=found, sentence="<u>"), made_at="<s>")
    assert "&lt;b&gt;&amp;" in text
    assert not re.search(r"<[bius]>", text)


def test_the_document_keeps_to_its_schema(made: Plan, rented: Plan) -> None:
    rules = schema(Plan, "A plan")
    for each in (made, rented):
        text = json.dumps(with_version(each), allow_nan=False)
        jsonschema_rs.validator_for(rules).validate(json.loads(text))
    broken = {**with_version(made), "decision": "perhaps"}
    assert not jsonschema_rs.validator_for(rules).is_valid(broken)
    del broken["decision"]
    assert not jsonschema_rs.validator_for(rules).is_valid(broken)


def test_what_has_no_finite_number_is_null() -> None:
    assert document((math.inf, math.nan, 1.5, Day(0), Choice.HOLD, np.float64(2))) == [
        None, None, 1.5, "1970-01-01", "hold", 2.0,
    ]  # fmt: skip


def test_the_sheet_sums_to_the_expected_costs(made: Plan) -> None:
    rows = list(csv.DictReader(io.StringIO(sheet(made))))
    assert tuple(rows[0]) == COLUMNS
    for name in ("rent", "mixed"):
        mine = [row for row in rows if row["policy"] == name]
        total = sum(float(row["discounted"]) for row in mine)
        assert total == pytest.approx(made.cost(name).expected, abs=1e-3)
        assert float(mine[-1]["npv"]) == pytest.approx(-total, abs=1e-3)


def test_amounts_are_shown_in_the_currency_asked_for(made: Plan) -> None:
    given = dataclasses.replace(made.assumptions, currency="EUR", currency_per_usd=0.5)
    amounts = Amounts.of(dataclasses.replace(made, assumptions=given))
    assert amounts.money(100) == "50.00 EUR"
    assert Amounts(Unit.RELATIVE, "EUR", 0.5).money(100) == "100.00 mean days"


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0.00"), (-0.0, "0.00"), (12.345, "12.35"), (-3.5, "−3.5"), (1234567.8, "1,234,568"), (0.00001, "1e-05"),
     (math.inf, "without bound"), (0.25, "0.25")],
)  # fmt: skip
def test_numbers_are_short(value: float, text: str) -> None:
    assert number(value) == text


def test_shares_are_per_cent() -> None:
    assert [share(0.123), share(1), share(-0.5), share(20)] == ["12.3 %", "100 %", "−50 %", "2,000 %"]


@pytest.mark.parametrize(("low", "high"), [(0, 1), (0, 8_750), (-3, 7), (0.001, 0.002), (1e6, 1e9), (-5, -1)])
def test_ticks_are_few_round_and_inside(low: float, high: float) -> None:
    found = charts.ticks(low, high)
    assert 2 <= len(found) <= 7
    assert all(low - 1e-9 * abs(low) <= each <= high + 1e-9 * abs(high) for each in found)
    steps = {f"{right - left:.6e}" for left, right in itertools.pairwise(found)}
    assert len(steps) == 1
    assert float(steps.pop().partition("e")[0]) in (1.0, 2.0, 2.5, 5.0)


def test_a_plot_puts_a_higher_value_higher() -> None:
    line = charts.Line("cost", [(0, 0), (1, 10), (2, 5)], "rent")
    drawn = ET.fromstring(charts.draw(charts.Plot("s", "x", "y", (line,))))
    points = [tuple(map(float, pair.split(","))) for pair in drawn.find("polyline").get("points").split()]  # type: ignore[union-attr]
    assert points[1][1] < points[2][1] < points[0][1]
    assert points[0][0] < points[1][0] < points[2][0]


def test_a_tornado_puts_the_widest_bar_on_top_and_low_values_left() -> None:
    narrow = charts.Swing("narrow", 9, 11, "a", "b")
    wide = charts.Swing("wide", 20, 2, "c", "d")
    drawn = charts.tornado([narrow, wide], 10, summary="s")
    assert drawn.index("wide") < drawn.index("narrow")
    assert re.findall(r"<title>(.*?)</title>", drawn) == ["wide c: 20", "wide d: 2", "narrow a: 9", "narrow b: 11"]
    spots = [float(x) for x in re.findall(r'<rect class="\w+" x="([\d.]+)"', drawn)]
    assert spots[1] < spots[2] < spots[0] == spots[3]  # from 2, from 9, and twice from 10


def test_nothing_to_draw_is_no_plot() -> None:
    assert charts.draw(charts.Plot("s", "x", "y", (charts.Line("a", [], "rent"),))) == ""
    assert charts.tornado([], 0, summary="s") == ""


def test_one_value_alone_is_drawn() -> None:
    assert "polyline" in charts.draw(charts.Plot("s", "x", "y", (charts.Line("a", [(1, 1)], "rent"),)))


@dataclasses.dataclass(frozen=True)
class Anything:
    value: object


@pytest.mark.parametrize(
    ("value", "as_json"),
    [
        (Day(20_000), "2024-10-04"),
        (Unit.USD, Unit.USD.value),
        (np.array([1.5, math.nan]), [1.5, None]),
        ({Day(20_000): math.inf}, {"2024-10-04": None}),
        ((1, Anything(2.5)), [1, {"value": 2.5}]),
        (np.int64(3), 3),
        (np.float64("nan"), None),
        (np.bool_(True), True),
        (None, None),
        ("text", "text"),
    ],
)
def test_a_document_holds_only_what_json_knows(value: object, as_json: object) -> None:
    assert json.dumps(document(Anything(value)), allow_nan=False) == json.dumps({"value": as_json})


def test_the_schema_of_an_array_is_one_of_numbers_and_a_kind_is_defined_once() -> None:
    made = schema(Nested, "nested")
    assert made["properties"]["array"] == {"type": "array", "items": {"type": ["number", "null"]}}
    assert made["properties"]["one"] == made["properties"]["other"] == {"$ref": "#/$defs/Leaf"}
    assert list(made["$defs"]) == ["Leaf"]


@dataclasses.dataclass(frozen=True)
class Leaf:
    below: "Leaf | None"


@dataclasses.dataclass(frozen=True)
class Nested:
    array: np.ndarray[tuple[int], np.dtype[np.float64]]
    one: Leaf
    other: Leaf


def test_figures_are_said_in_their_own_unit() -> None:
    amounts = Amounts(Unit.USD, "EUR", 2.0)
    assert (days(None), days(math.inf), days(9.96), days(10.4)) == ("never", "never", "10.0 days", "10 days")
    assert of_unit(None, "USD", amounts) == "none"
    assert of_unit(0.25, "share", amounts) == "25 %"
    assert of_unit(10.0, "USD", amounts) == amounts.money(10.0) == "20.00 EUR"
    assert of_unit(0.5, "a year", amounts) == "50 % a year"
    assert of_unit(1_000, "paths", amounts) == "1,000 paths"
