"""What the guides show works as it stands."""

import re
import tomllib
from pathlib import Path

from freehold.cli.root import cli
from freehold.upstream.config import read_upstreams

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs" / "guide").glob("*.md"))]


def test_the_upstream_of_the_guide_is_one(tmp_path: Path) -> None:
    (text,) = re.findall(r"```toml\n(.*?)```", (ROOT / "docs/guide/operating.md").read_text("utf-8"), re.DOTALL)
    key = tmp_path / "key"
    key.write_text("secret")
    (upstream,) = read_upstreams(tomllib.loads(text.replace("/run/secrets/vllm", str(key)))["upstream"])
    assert list(upstream.models) == ["llama-70b"]


def test_every_command_that_a_page_names_is_one() -> None:
    named = {
        (page.name, word)
        for page in PAGES
        for word in re.findall(
            r"(?:^|[`$ /])freehold ([a-z]+(?:-[a-z]+)*)\b(?!=)", page.read_text("utf-8"), re.MULTILINE
        )
    }
    assert named
    assert {word for _, word in named} <= set(cli.commands)


def test_every_link_between_pages_leads_somewhere() -> None:
    pages = [*PAGES, *(ROOT / name for name in ("ARCHITECTURE.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md"))]
    broken = [
        f"{page.name}: {target}"
        for page in pages
        for target in re.findall(r"\]\(([^)#]+)", page.read_text("utf-8"))
        if "://" not in target and not (page.parent / target).exists()
    ]
    assert broken == []
