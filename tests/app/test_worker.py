"""What a worker process sets for itself, in a process of its own: this one has it set by the tests."""

import subprocess
import sys

from freehold.app.plan import Plan

PLAN = Plan(0, "", "", "", (), "", 1, 0.0, None, None, 1, 1, "info")

AS_A_WORKER = """
import sys
from freehold.app import worker

async def serve(plan):
    print(sys.getrecursionlimit())

worker.serve = serve
sys.setrecursionlimit(100_000)  # as some libraries do when they are imported
worker.run(sys.stdin.buffer.read())
"""


def test_a_worker_holds_the_recursion_limit_that_a_library_has_raised() -> None:
    ran = subprocess.run([sys.executable, "-c", AS_A_WORKER], input=PLAN.dump(), capture_output=True, check=True)
    assert ran.stdout.split() == [b"1000"]
