"""`freehold …`: talks HTTP to a running server, and to the chain for a wallet's own transactions."""


def main() -> None:
    """The console script."""
    import io
    import sys

    from freehold.cli.root import cli

    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal without our signs shows '?', not an error
    cli(prog_name="freehold")
