"""`freehold …`: talks HTTP to a running server, and to the chain for a wallet's own transactions."""


def main() -> None:
    """The console script."""
    import io
    import sys

    from freehold.cli.root import cli

    _open_what_is_closed()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal without our signs shows '?', not an error
    cli(prog_name="freehold")


def _open_what_is_closed() -> None:
    """Who closed a standard stream (`>&-`) must not get a file or a socket of ours under its number."""
    import os
    import sys

    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115, PTH123 - as long as we run
