"""`freehold …`: talks HTTP to a running server, and to the chain for a wallet's own transactions."""


def main() -> None:
    """The console script."""
    from freehold.cli.root import cli

    cli(prog_name="freehold")
