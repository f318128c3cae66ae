"""`python -m freehold.app worker`: what the supervisor starts. Not for people."""

import sys

if __name__ == "__main__":
    if sys.argv[1:] != ["worker"]:
        sys.exit("usage: python -m freehold.app worker  (started by `freehold up`)")
    from freehold.app.worker import run

    run(sys.stdin.buffer.read())
