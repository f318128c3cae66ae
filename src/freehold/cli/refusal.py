"""What the CLI refuses: one sentence with the mend, on stderr, exit code 1."""

from collections.abc import Mapping
from typing import Any

import click


class Refusal(click.ClickException):
    """A command can't go on; the message is one sentence that ends in what to do."""

    exit_code = 1

    def show(self, file: Any = None) -> None:
        click.echo(f"freehold: {self.format_message()}", err=True, file=file)


class ServerRefused(Refusal):
    """The server answered with an error of its own: its sentence is shown as it is."""

    def __init__(self, status: int, code: str, message: str, headers: Mapping[str, str] | None = None) -> None:
        """`headers`: of the answer, their names in lower case."""
        super().__init__(message)
        self.status = status
        self.code = code
        self.headers = headers or {}


class ServerUnreachable(Refusal):
    """Nothing answers, or what answers isn't Freehold."""
