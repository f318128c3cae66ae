"""What /proc says of processes, which cores they may use, and what machine this is. Linux only."""

import contextlib
import os
import platform
from collections.abc import Iterable, Sequence
from pathlib import Path

TICK_S = 1 / os.sysconf("SC_CLK_TCK")
PAGE_MB = os.sysconf("SC_PAGE_SIZE") / 1e6


def quantile(ordered: Sequence[float], share: float) -> float:
    """Of sorted values, by rank; NaN when there are none."""
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else float("nan")


def _stat(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/stat").read_text("utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return []


def tree(root: int) -> list[int]:
    """A process and all that descend from it."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal() and (fields := _stat(int(entry.name))):
            children.setdefault(int(fields[1]), []).append(int(entry.name))
    found = [root]
    for pid in found:
        found.extend(children.get(pid, []))
    return found


def cpu_s(roots: Iterable[int]) -> float:
    """CPU time, user and system, of these processes and of their children, ended ones too, in seconds."""
    total = 0
    for root in roots:
        for pid in tree(root):
            if fields := _stat(pid):
                total += sum(int(fields[at]) for at in (11, 12, 13, 14))
    return total * TICK_S


def rss_mb(roots: Iterable[int]) -> float:
    """Resident memory of these processes and their children in MB; memory that several share counts once for each."""
    pids = {pid for root in roots for pid in tree(root)}
    return sum(int(fields[21]) * PAGE_MB for pid in pids if (fields := _stat(pid)))


def pss_mb(roots: Iterable[int]) -> float:
    """Like rss_mb, but shared memory counts once in all."""
    total = 0
    for pid in {pid for root in roots for pid in tree(root)}:
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text("utf-8").splitlines():
                if line.startswith("Pss:"):
                    total += int(line.split()[1])
    return total / 1000


def pin(root: int, cores: Iterable[int]) -> None:
    """Let a process, its children and all their threads run on these cores only."""
    wanted = set(cores)
    for pid in tree(root):
        with contextlib.suppress(OSError):
            for thread in Path(f"/proc/{pid}/task").iterdir():
                with contextlib.suppress(OSError):
                    os.sched_setaffinity(int(thread.name), wanted)


def described() -> dict[str, str | int | float]:
    """This machine, without its name."""
    cpu = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text("utf-8").splitlines()
            if line.startswith("model name")
        ),
        platform.machine(),
    )
    memory_kb = int(Path("/proc/meminfo").read_text("utf-8").split()[1])
    return {
        "cpu": cpu,
        "cores": os.cpu_count() or 0,
        "memory_gb": round(memory_kb / 1e6, 1),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "load_average": round(os.getloadavg()[0], 2),
    }
