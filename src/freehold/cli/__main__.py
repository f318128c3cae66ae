"""`python -m freehold.cli`."""

from freehold.cli import main

main()
