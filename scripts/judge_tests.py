"""Read pytest's JUnit file: fail when no test ran, one failed, or one was skipped for a reason that isn't listed."""

import re
import sys
import xml.etree.ElementTree as ET
from pathlib import Path


def judge(results: Path, allowed: Path) -> tuple[list[str], str]:
    """(what is wrong, pytest's kind of closing line)."""
    if not results.is_file():
        return ["No test ran: pytest left no result file."], "0 passed, 0 failed"
    listed = [
        line.strip() for line in allowed.read_text("utf-8").splitlines() if line.strip() and not line.startswith("#")
    ]
    wrong: list[str] = []
    passed = failed = skipped = 0
    for case in ET.parse(results).getroot().iter("testcase"):  # noqa: S314 - our own pytest wrote it
        name = f"{case.get('classname')}::{case.get('name')}"
        if case.find("failure") is not None or case.find("error") is not None:
            failed += 1
            continue
        skip = case.find("skipped")
        if skip is None:
            passed += 1
            continue
        skipped += 1
        reason = skip.get("message") or ""
        if not any(re.match(each, reason) for each in listed):
            wrong.append(f"{name} was skipped for a reason that tests/allowed_skips.txt doesn't list: {reason}")
    if passed + failed == 0:
        wrong.append("No test ran.")
    if failed:
        wrong.append(f"{failed} tests failed.")
    return wrong, f"{passed} passed, {failed} failed, {skipped} skipped"


if __name__ == "__main__":
    found, closing = judge(Path(sys.argv[1]), Path(sys.argv[2]))
    for each in found:
        sys.stderr.write(f"{each}\n")
    sys.stdout.write(f"{closing}\n")
    sys.exit(1 if found else 0)
