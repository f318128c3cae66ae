"""Standard streams that were closed before the command began."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("command", "code", "said"),
    [
        ("chat hi --url http://127.0.0.1:9 --api-key fh_x >&-", 1, "freehold: Standard output is closed"),
        ("balance --url http://127.0.0.1:9 --api-key fh_x >&-", 1, "freehold: Standard output is closed"),
        ("chat --url http://127.0.0.1:9 --api-key fh_x <&-", 2, "stdin is empty"),
        ("balance --url http://127.0.0.1:9 --api-key fh_x 2>&-", 1, ""),
    ],
)
def test_a_closed_stream_is_no_fault(command: str, code: int, said: str, tmp_path: Path) -> None:
    done = subprocess.run(
        ["sh", "-c", f'"{sys.executable}" -m freehold.cli {command}'],
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT / "src"), "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == code and said in done.stderr
    assert "fault" not in done.stderr and "Traceback" not in done.stderr
