"""A plan's page in a real browser: what is seen first, who can read it, and that it asks for nothing."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, sync_playwright

from freehold.clock import Day
from freehold.planner.model import Assumptions, Usage
from freehold.planner.planner import plan
from freehold.planner.report.page import page

SIZES = ((1280, 800), (390, 844))
QUIET = ("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    found = shutil.which("chromium")
    if found is None:
        pytest.skip("no Chromium on this machine: install Debian's package chromium")
    with sync_playwright() as started:
        opened = started.chromium.launch(executable_path=found, args=list(QUIET))
        yield opened
        opened.close()


@pytest.fixture(scope="module", params=["hold", "rent"])
def written(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page with everything on it: warnings, gaps, a long history."""
    demand = np.random.default_rng(5).gamma(3, 4, size=120)
    price = 150.0 if request.param == "hold" else 9_000.0
    made = plan(Usage(first_day=Day(20_000), demand=demand), Assumptions(diem_price=price, hazard=1, paths=300))
    assert made.decision.value == request.param
    target: Path = tmp_path_factory.mktemp("page") / f"{request.param}.html"
    target.write_text(page(made, made_at="2026-11-23 12:00 UTC"), "utf-8")
    return target


@pytest.mark.parametrize("size", SIZES, ids=["wide", "narrow"])
def test_decision_size_and_threshold_are_seen_without_scrolling(
    browser: Browser, written: Path, size: tuple[int, int]
) -> None:
    width, height = size
    tab = browser.new_page(viewport={"width": width, "height": height})
    tab.goto(written.as_uri())
    for place in ("h1", ".answer > p", ".facts div:nth-child(1)", ".facts div:nth-child(2)"):
        box = tab.locator(place).bounding_box()
        assert box is not None, place
        assert box["x"] >= 0 and box["x"] + box["width"] <= width, place
        assert box["y"] >= 0 and box["y"] + box["height"] <= height, place
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
    assert tab.locator(".facts div:nth-child(2) dt").inner_text() == "Flips at"
    tab.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", SIZES, ids=["wide", "narrow"])
def test_axe_finds_nothing(browser: Browser, written: Path, scheme: Any, size: tuple[int, int]) -> None:
    tab = browser.new_page(viewport={"width": size[0], "height": size[1]}, color_scheme=scheme, bypass_csp=True)
    tab.goto(written.as_uri())
    found = Axe().run(tab)
    assert len(found.response["passes"]) > 10
    assert [each["id"] for each in found.response["violations"]] == [], found.generate_report()
    tab.close()


def test_the_page_makes_no_request_but_for_itself(browser: Browser, written: Path) -> None:
    tab = browser.new_page()
    asked: list[str] = []
    tab.on("request", lambda request: asked.append(request.url))
    tab.goto(written.as_uri(), wait_until="networkidle")
    assert asked == [written.as_uri()]
    tab.close()


def test_the_page_is_light_on_paper(browser: Browser, written: Path) -> None:
    tab = browser.new_page(color_scheme="dark")
    tab.goto(written.as_uri())
    colour = "getComputedStyle(document.body).backgroundColor"
    assert tab.evaluate(colour) == "rgb(20, 23, 26)"
    tab.emulate_media(media="print")
    assert tab.evaluate(colour) == "rgb(255, 255, 255)"
    tab.close()
