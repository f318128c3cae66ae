"""The generated pages are what would be generated now, and every command has its place in the help."""

from pathlib import Path

import click

from freehold.cli import reference
from freehold.cli.root import SECTIONS, cli

DOCS = Path(__file__).parents[2] / "docs" / "reference"


def test_the_command_reference_is_current() -> None:
    assert (DOCS / "cli.md").read_text("utf-8") == reference.commands_page(), "run `make generate`"


def test_the_error_table_is_current() -> None:
    assert (DOCS / "errors.md").read_text("utf-8") == reference.errors_page(), "run `make generate`"


def test_every_command_stands_in_one_section_of_the_help() -> None:
    named = [command.name for _, commands in SECTIONS for command in commands]
    assert sorted(named) == sorted(cli.commands)  # type: ignore[type-var]


def test_every_command_that_shows_something_takes_json() -> None:
    def leaves(command: click.Command, path: str) -> list[tuple[str, click.Command]]:
        if isinstance(command, click.Group) and command.commands:
            own = [] if not command.invoke_without_command else [(path, command)]
            return own + [leaf for name, child in command.commands.items() for leaf in leaves(child, f"{path} {name}")]
        return [(path, command)]

    without = [
        path
        for path, command in leaves(cli, "freehold")
        if not any(option.name == "as_json" for option in command.params)
    ]
    assert without == ["freehold up"]


def test_the_pins_of_the_weights_are_those_of_the_lock() -> None:
    root = Path(__file__).parents[2]
    pins = (root / "src/freehold/cli/weights.lock").read_text("utf-8")
    assert pins == (root / "requirements-models.lock").read_text("utf-8")
