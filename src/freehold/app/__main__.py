"""`python -m freehold.app worker`: what the supervisor starts. Not for people."""

import logging
import os
import sys

if __name__ == "__main__":
    if sys.argv[1:] != ["worker"]:
        sys.exit("usage: python -m freehold.app worker  (started by `freehold up`)")
    from freehold.app.worker import run

    run(sys.stdin.buffer.read())
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # everything is closed; pyreqwest's threads can abort an interpreter that takes its time to end
