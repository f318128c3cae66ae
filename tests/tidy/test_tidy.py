"""What the repository must not gather: pages out of date, code nobody imports, notes to self, addresses of registries."""

import ast
import importlib.util
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "freehold"
LOCKS = sorted(ROOT.glob("requirements*.lock"))
CLIENTS = ROOT / "tests" / "clients" / "requirements.lock"
STARTED_BY_NAME = {
    "freehold.app.__main__",
    "freehold.cli.__main__",
    "freehold.upstream.embedded",
}
"""Modules that a process is started with."""


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def tracked(*patterns: str) -> list[Path]:
    """Tracked files that exist, as text."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--", *patterns], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return [ROOT / name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]


def texts() -> Iterator[tuple[Path, str]]:
    for path in tracked():
        try:
            yield path, path.read_text("utf-8")
        except UnicodeDecodeError:
            continue


def test_generated_pages_are_what_would_be_generated_now() -> None:
    assert script("generate").outdated() == []


def test_every_domain_has_a_readme() -> None:
    domains = [folder for folder in SOURCE.iterdir() if (folder / "__init__.py").is_file()]
    assert len(domains) > 8
    assert [folder.name for folder in domains if not (folder / "README.md").is_file()] == []


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT / "src").with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path: Path) -> Iterator[str]:
    inside = SOURCE in path.parents
    package = module_name(path if path.name == "__init__.py" else path.with_name("__init__.py")) if inside else ""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package.rsplit(".", node.level - 1)[0] if node.level else ""
            origin = ".".join(part for part in (base, node.module) if part)
            yield origin
            yield from (f"{origin}.{alias.name}" for alias in node.names)


def test_every_module_is_imported_by_another() -> None:
    modules = {module_name(path): path for path in SOURCE.rglob("*.py")}
    importers = [*SOURCE.rglob("*.py"), *(ROOT / "scripts").glob("*.py")]
    imported = {name for path in importers for name in imports(path) if modules.get(name) != path}
    packages = {module_name(path) for path in SOURCE.rglob("__init__.py")}
    assert sorted(set(modules) - imported - packages - STARTED_BY_NAME) == []


def test_no_note_to_self_is_left() -> None:
    note = re.compile(r"\b(?:TO" r"DO|FIX" r"ME|XX" r"X|HA" r"CK)\b")
    found = [
        f"{path.relative_to(ROOT)}: {line.strip()}"
        for path, text in texts()
        if path.suffix in (".py", ".md", ".sql", ".sol", ".toml", ".html", "")
        for line in text.splitlines()
        if note.search(line)
    ]
    assert found == []


def test_no_path_of_somebodys_machine_is_left() -> None:
    machine = re.compile(r"/(?:ho" r"me/\w|ro" r"ot/|wo" r"rk/|Us" r"ers/\w)")
    found = [
        f"{path.relative_to(ROOT)}: {line.strip()[:120]}"
        for path, text in texts()
        for line in text.splitlines()
        if machine.search(line)
    ]
    assert found == []


def test_no_tracked_file_names_a_registry() -> None:
    registry = re.compile(
        r"pypi\.org|pythonhosted|regi" r"stry\.(?:npmjs|yarnpkg)|--(?:extra-)?index-url[ =]|--find-links"
    )
    found = [str(path.relative_to(ROOT)) for path, text in texts() if path != Path(__file__) and registry.search(text)]
    assert found == []


@pytest.mark.parametrize("lock", [*LOCKS, CLIENTS], ids=lambda lock: str(lock.relative_to(ROOT)))
def test_every_locked_package_has_a_hash_and_no_address(lock: Path) -> None:
    text = lock.read_text("utf-8")
    assert "://" not in text
    pinned = re.split(r"\n(?=[a-z0-9])", text.strip(), flags=re.IGNORECASE)
    assert pinned
    assert [entry.splitlines()[0] for entry in pinned if "==" not in entry or "--hash=sha256:" not in entry] == []


@pytest.mark.parametrize("folder", ["npm", "contracts"])
def test_every_locked_npm_package_has_a_hash_and_no_address(folder: str) -> None:
    import json

    packages = json.loads((ROOT / folder / "package-lock.json").read_text("utf-8"))["packages"]
    inner = {name: entry for name, entry in packages.items() if name}
    assert inner
    assert [name for name, entry in inner.items() if "integrity" not in entry or "resolved" in entry] == []


def test_the_locks_hold_what_the_project_asks_for() -> None:
    import tomllib

    from packaging.requirements import Requirement

    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    groups = project["dependency-groups"]

    def group(name: str) -> list[str]:
        return [
            text
            for entry in groups[name]
            for text in ([entry] if isinstance(entry, str) else group(entry["include-group"]))
        ]

    asked = {
        "requirements.lock": [*project["project"]["dependencies"], *group("build")],
        "requirements-dev.lock": [*project["project"]["dependencies"], *group("dev")],
        "requirements-models.lock": group("models"),
        "requirements-setup.lock": group("setup"),
    }
    assert {lock.name for lock in LOCKS} == set(asked)
    for name, wanted in asked.items():
        locked: dict[str, list[str]] = {}
        for package, pin in re.findall(r"^([a-z0-9._-]+)==([^ ;\\]+)", (ROOT / name).read_text("utf-8"), re.MULTILINE):
            locked.setdefault(package, []).append(pin)
        for text in wanted:
            requirement = Requirement(text)
            pins = locked.get(requirement.name.lower().replace("_", "-"), [])
            assert any(requirement.specifier.contains(pin, prereleases=True) for pin in pins), f"{name}: {text}"


def test_running_needs_nothing_that_only_tests_do() -> None:
    text = (ROOT / "requirements.lock").read_text("utf-8")
    for package in ("pytest", "hypothesis", "mypy", "ruff", "pyrevm", "openai"):
        assert not re.search(rf"^{package}==", text, re.MULTILINE), package


def test_the_set_up_can_be_read_by_an_old_python() -> None:
    ast.parse((ROOT / "scripts" / "bootstrap.py").read_text("utf-8"), feature_version=(3, 8))


def test_the_environment_is_read_in_one_place() -> None:
    readers = {
        str(path.relative_to(SOURCE))
        for path in SOURCE.rglob("*.py")
        if re.search(r"os\.(?:environ\b(?!\.setdefault)|getenv)", path.read_text("utf-8"))
    }
    assert readers == {"app/settings.py"}


def test_the_launcher_says_what_to_run_first(tmp_path: Path) -> None:
    folder = tmp_path / "a space"
    folder.mkdir()
    (folder / "freehold").write_bytes((ROOT / "freehold").read_bytes())
    (folder / "freehold").chmod(0o755)
    (tmp_path / "link").symlink_to("a space/freehold")
    said = subprocess.run([tmp_path / "link"], capture_output=True, text=True, cwd="/", check=False)
    assert said.returncode == 2
    assert said.stderr == f"Freehold is not set up in {folder}: run `make up` there first.\n"


def test_a_machine_without_a_python_is_told_what_to_install(tmp_path: Path) -> None:
    said = subprocess.run(
        ["/bin/sh", ROOT / "scripts" / "choose-python"],
        capture_output=True,
        text=True,
        env={"PATH": str(tmp_path)},
        check=False,
    )
    assert said.returncode == 2
    assert "python3-venv" in said.stderr


def test_a_name_on_path_that_doesnt_run_is_passed_over(tmp_path: Path) -> None:
    shim = tmp_path / "python3.12"
    shim.write_text("#!/bin/sh\nexit 127\n", "utf-8")
    shim.chmod(0o755)
    real = tmp_path / "python3.11"
    real.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n', "utf-8")
    real.chmod(0o755)
    said = subprocess.run(
        ["/bin/sh", ROOT / "scripts" / "choose-python"],
        capture_output=True,
        text=True,
        env={"PATH": str(tmp_path)},
        check=False,
    )
    assert said.returncode == 0, said.stderr
    assert said.stdout.strip() == sys.executable


RESULTS = "<testsuites><testsuite>{}</testsuite></testsuites>"


@pytest.mark.parametrize(
    ("cases", "wrong", "closing"),
    [
        ("", "No test ran.", "0 passed, 0 failed, 0 skipped"),
        ('<testcase classname="a" name="b"/>', None, "1 passed, 0 failed, 0 skipped"),
        ('<testcase classname="a" name="b"><failure/></testcase>', "1 tests failed.", "0 passed, 1 failed, 0 skipped"),
        (
            '<testcase classname="a" name="c"/><testcase classname="a" name="b"><skipped message="because"/></testcase>',
            "a::b was skipped for a reason that tests/allowed_skips.txt doesn't list: because",
            "1 passed, 0 failed, 1 skipped",
        ),
        (
            '<testcase classname="a" name="c"/><testcase classname="a" name="b"><skipped message="listed x"/></testcase>',
            None,
            "1 passed, 0 failed, 1 skipped",
        ),
    ],
)
def test_ci_fails_when_no_test_ran_or_one_was_skipped_unlisted(
    tmp_path: Path, cases: str, wrong: str | None, closing: str
) -> None:
    (tmp_path / "junit.xml").write_text(RESULTS.format(cases), "utf-8")
    (tmp_path / "allowed").write_text("# reasons\nlisted\n", "utf-8")
    found, said = script("judge_tests").judge(tmp_path / "junit.xml", tmp_path / "allowed")
    assert found == ([wrong] if wrong else [])
    assert said == closing
