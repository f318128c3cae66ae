"""Writes docs/reference/cli.md and errors.md from the commands' help and the refusals' own texts.

`python -m freehold.cli.reference [FOLDER]`
"""

import importlib
import pkgutil
import sys
from collections.abc import Iterator
from pathlib import Path

import click

import freehold
from freehold.problems import Problem

FOLDER = Path("docs/reference")


def pages() -> dict[str, str]:
    """The generated pages, by file name."""
    return {"cli.md": commands_page(), "errors.md": errors_page()}


def commands_page() -> str:
    """Every command's help, in the order of `freehold --help`."""
    from freehold.cli.root import cli

    parts = [
        "# Command line\n\nMade by `make generate` from the commands' own help; a test compares.\n\n"
        "Results go to stdout, remarks and progress to stderr. `--json` writes one JSON document (`chat` and `tour`: JSON\n"
        "Lines). Exit code 0 is success, 1 a refusal (one sentence on stderr), 2 a command that was not understood. `NO_COLOR`\n"
        "is honoured.\n"
    ]
    for context in _walk(click.Context(cli, info_name="freehold", terminal_width=100, **cli.context_settings)):
        text = context.command.get_help(context)
        parts.append(f"## {context.command_path}\n\n```\n{text}\n```\n")
    return "\n".join(parts)


def errors_page() -> str:
    """Every refusal that has a code, by status."""
    found = sorted({(problem.status, problem.code, problem.type, _message(problem)) for problem in _problems()})
    rows = "\n".join(f"| {status} | `{code}` | `{kind}` | {message} |" for status, code, kind, message in found)
    return (
        "# Errors\n\nMade by `make generate` from the refusals' own texts; a test compares.\n\n"
        'Every refusal has OpenAI\'s shape, `{"error": {"message", "type", "code", "param"}}`. What stands in braces below is\n'
        "filled in. A refusal that a retry can't mend carries `x-should-retry: false`.\n\n"
        f"| status | code | type | message |\n|---|---|---|---|\n{rows}\n"
    )


def _problems() -> Iterator[type[Problem]]:
    """Every Problem of every module, itself left out."""
    for module in pkgutil.walk_packages(freehold.__path__, "freehold."):
        if module.name.rpartition(".")[2] != "__main__":
            importlib.import_module(module.name)
    waiting = [Problem]
    while waiting:
        for kind in waiting.pop().__subclasses__():
            waiting.append(kind)
            if kind.__module__.startswith("freehold."):
                yield kind


def _message(problem: type[Problem]) -> str:
    text = " ".join((problem.__doc__ or "").split()).replace("|", "\\|")
    return text if text != "{reason}" else "(says the reason)"


def _walk(context: click.Context) -> Iterator[click.Context]:
    yield context
    command = context.command
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            child = command.get_command(context, name)
            if child is not None and not child.hidden:
                yield from _walk(
                    click.Context(child, info_name=name, parent=context, max_content_width=100, terminal_width=100)
                )


def main() -> None:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in pages().items():
        (folder / name).write_text(text, "utf-8")


if __name__ == "__main__":
    main()
