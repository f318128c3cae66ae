"""From samples to RESULTS.md, results.json and results.svg. Pure, but for writing the three files."""

import json
import statistics
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

NAMES = {
    "direct": "no gateway",
    "nginx": "nginx pass-through",
    "freehold": "Freehold",
    "portkey": "Portkey",
    "litellm": "LiteLLM",
}

Sample = dict[str, Any]


def median(values: Iterable[float | None]) -> float | None:
    found = [value for value in values if value is not None]
    return statistics.median(found) if found else None


def minus(a: float | None, b: float | None) -> float | None:
    return None if a is None or b is None else a - b


def shown(value: float | None, unit: str = "", *, places: int = 0) -> str:
    return "–" if value is None else f"{value:,.{places}f}{unit}"


@dataclass(frozen=True, slots=True)
class Table:
    """The samples of one phase."""

    samples: list[Sample]

    def of(self, target: str, size: int) -> list[Sample]:
        return [sample for sample in self.samples if sample["target"] == target and sample["size"] == size]

    def median(self, target: str, size: int, read: Callable[[Sample], float | None]) -> float | None:
        return median(read(sample) for sample in self.of(target, size))

    def paired(
        self, a: tuple[str, int], b: tuple[str, int], read: Callable[[Sample], float | None], *, ratio: bool
    ) -> float | None:
        """Median over the rounds of a's figure over b's, or less b's, each in the same round."""
        others = {sample["round"]: read(sample) for sample in self.of(*b)}
        found: list[float] = []
        for sample in self.of(*a):
            own, other = read(sample), others.get(sample["round"])
            if own is None or other is None or (ratio and not other):
                continue
            found.append(own / other if ratio else own - other)
        return statistics.median(found) if found else None

    def sizes(self) -> list[int]:
        return sorted({sample["size"] for sample in self.samples})

    def targets(self) -> list[str]:
        return [name for name in NAMES if any(sample["target"] == name for sample in self.samples)]


def field(name: str) -> Callable[[Sample], float | None]:
    return lambda sample: sample.get(name)


def cpu(process: str, name: str = "cpu_us") -> Callable[[Sample], float | None]:
    return lambda sample: sample.get(name, {}).get(process)


def memory(process: str) -> Callable[[Sample], float | None]:
    return lambda sample: sample.get("rss_mb", {}).get(process) if isinstance(sample.get("rss_mb"), dict) else None


def plain(table: Table) -> dict[str, Any]:
    """Per target and number of callers, medians over the rounds; what is added is taken within each round."""
    return {
        target: {
            str(size): {
                "rps": table.median(target, size, field("rps")),
                "p50_us": table.median(target, size, field("p50_us")),
                "p99_us": table.median(target, size, field("p99_us")),
                "added_p50_us": table.paired((target, size), ("direct", size), field("p50_us"), ratio=False),
                "added_p99_us": table.paired((target, size), ("direct", size), field("p99_us"), ratio=False),
                "cpu_us": table.median(target, size, cpu("gateway")),
                "postgres_cpu_us": table.median(target, size, cpu("postgres")),
                "rss_mb": table.median(target, size, memory("gateway")),
                "postgres_rss_mb": table.median(target, size, memory("postgres")),
                "failed": sum(sample["failed"] for sample in table.of(target, size)),
                "rounds": len(table.of(target, size)),
            }
            for size in table.sizes()
            if table.of(target, size)
        }
        for target in table.targets()
    }


def streams(table: Table) -> dict[str, Any]:
    return {
        target: {
            str(size): {
                "first_p50_us": table.median(target, size, field("first_p50_us")),
                "first_p99_us": table.median(target, size, field("first_p99_us")),
                "added_p50_us": table.paired((target, size), ("direct", size), field("first_p50_us"), ratio=False),
                "added_p99_us": table.paired((target, size), ("direct", size), field("first_p99_us"), ratio=False),
                "streams": sum(sample["streams"] for sample in table.of(target, size)),
                "broken": sum(sample["broken"] for sample in table.of(target, size)),
                "lost_chunks": sum(sample["lost_chunks"] for sample in table.of(target, size)),
                "cpu_us_per_chunk": table.median(target, size, cpu("gateway", "cpu_us_per_chunk")),
                "core_share": table.median(target, size, cpu("gateway", "cpu_share")),
                "failure": next((s["failure"] for s in table.of(target, size) if s.get("failure")), None),
                "rounds": len(table.of(target, size)),
            }
            for size in table.sizes()
            if table.of(target, size)
        }
        for target in table.targets()
    }


def ledger(table: Table) -> dict[str, Any]:
    return {
        str(size): {
            "pairs_per_s": table.median("ledger", size, field("pairs")),
            "hold_ms": table.median("ledger", size, field("hold_ms")),
            "cpu_us": table.median("ledger", size, cpu("ledger")),
            "postgres_cpu_us": table.median("ledger", size, cpu("postgres")),
            "rounds": len(table.of("ledger", size)),
        }
        for size in table.sizes()
    }


def whole_cpu(first: str) -> Callable[[Sample], float | None]:
    def read(sample: Sample) -> float | None:
        used = sample.get("cpu_us", {})
        return used[first] + used["postgres"] if first in used and "postgres" in used else None

    return read


def grown(table: Table, target: str, process: str) -> dict[str, Any] | None:
    """Cost per call with many accounts over that with few."""
    sizes = [size for size in table.sizes() if size]
    if len(sizes) < 2:
        return None
    few, many = sizes[0], sizes[-1]
    at = {size: table.median(target, size, whole_cpu(process)) for size in (few, many)}
    ratio = table.paired((target, many), (target, few), whole_cpu(process), ratio=True)
    if at[few] is None or at[many] is None or ratio is None:
        return None
    return {
        "few": few,
        "many": many,
        "cpu_us_few": at[few],
        "cpu_us_many": at[many],
        "ratio": ratio,
        "rate_few": table.median(target, few, lambda sample: sample.get("rps", sample.get("pairs"))),
        "rate_many": table.median(target, many, lambda sample: sample.get("rps", sample.get("pairs"))),
    }


@dataclass(frozen=True, slots=True)
class Bar:
    """One thing that was asked for."""

    what: str
    wanted: str
    value: float | None
    met: bool | None
    value_shown: str


def bars(found: dict[str, Any]) -> list[Bar]:
    """Each bar of the issue against what was measured."""
    at = found["pinned"].get("freehold", {})
    streaming = found["streams"].get("freehold", {})
    growth = found["memory"]
    rows: list[Bar] = []

    def bar(what: str, wanted: str, value: float | None, passes: Callable[[float], bool], text: str) -> None:
        rows.append(Bar(what, wanted, value, None if value is None else passes(value), text))

    def microseconds(what: str, value: float | None, most: float) -> None:
        bar(what, f"≤ {most:,.0f} µs", value, lambda given: given <= most, shown(value, " µs"))

    def milliseconds(what: str, value_us: float | None, most: float) -> None:
        text = shown(None if value_us is None else value_us / 1000, " ms", places=2)
        bar(what, f"≤ {most:g} ms", value_us, lambda given: given <= most * 1000, text)

    ratio = found["ratio_litellm"]
    bar("requests/s over LiteLLM's, 64 callers", "≥ 30", ratio, lambda given: given >= 30, shown(ratio, "x", places=1))
    ratio = found["ratio_nginx"]
    percent = shown(None if ratio is None else ratio * 100, " %", places=1)
    bar("requests/s over nginx's, 64 callers", "≥ 6 % (stretch 10 %)", ratio, lambda given: given >= 0.06, percent)
    microseconds("CPU of the gateway per call, 64 callers", at.get("64", {}).get("cpu_us"), 250)
    microseconds("CPU of PostgreSQL per call, 64 callers", at.get("64", {}).get("postgres_cpu_us"), 150)
    milliseconds("added p50, 1 caller (stretch 1.3 ms)", at.get("1", {}).get("added_p50_us"), 2)
    milliseconds("first token added p50, 200 streams", streaming.get("200", {}).get("added_p50_us"), 3)
    milliseconds("first token added p99, 200 streams", streaming.get("200", {}).get("added_p99_us"), 40)
    broken = streaming.get("1000", {}).get("broken")
    lost = streaming.get("1000", {}).get("lost_chunks")
    text = "–" if broken is None else f"{broken} broken, {lost} chunks lost"
    bar("1,000 streams", "none broken", broken, lambda given: given == 0 and lost == 0, text)
    hot = found["ledger"].get("1", {}).get("pairs_per_s")
    bar("hold+settle pairs/s, one hot account", "≥ 6,000", hot, lambda given: given >= 6000, shown(hot))
    for name, what in (("accounts", "through the gateway"), ("population", "ledger alone, any account")):
        grew = found[name]
        value = None if grew is None else grew["ratio"] - 1
        label = "more accounts" if grew is None else f"{grew['many']:,} accounts over {grew['few']:,}"
        text = shown(None if value is None else value * 100, " %", places=1)
        bar(f"cost per call at {label}, {what}", "within 15 %", value, lambda given: given <= 0.15, text)
    value = None if growth is None else growth["ratio"] - 1
    label = "calls" if growth is None else f"{growth['last']:,} calls over {growth['first']:,}"
    text = shown(None if value is None else value * 100, " %", places=1)
    bar(f"RSS after {label}", "≤ 10 %", value, lambda given: given <= 0.10, text)
    return rows


def results(samples: list[Sample], about: dict[str, Any]) -> dict[str, Any]:
    """Everything that results.json holds."""

    def phase(name: str) -> Table:
        return Table([sample for sample in samples if sample["phase"] == name])

    pinned, unpinned = phase("pinned"), phase("unpinned")
    pairs = {
        f"{prefix}ratio_{peer}": table.paired(("freehold", 64), (peer, 64), field("rps"), ratio=True)
        for prefix, table in (("", pinned), ("unpinned_", unpinned))
        for peer in ("nginx", "litellm", "portkey")
    }
    books = next((sample["books"] for sample in phase("books").samples), None)
    kept = sorted((s["size"], memory("gateway")(s)) for s in samples if s["phase"] == "memory")
    growth = None
    if len(kept) >= 2 and kept[0][1] and kept[-1][1]:
        growth = {"first": kept[0][0], "last": kept[-1][0], "mb_first": kept[0][1], "mb_last": kept[-1][1]}
        growth["ratio"] = kept[-1][1] / kept[0][1]
    found: dict[str, Any] = {
        "ratio_nginx": pairs["ratio_nginx"],
        "ratio_litellm": pairs["ratio_litellm"],
        **about,
        "books": books,
        "ratios": pairs,
        "pinned": plain(pinned),
        "unpinned": plain(unpinned),
        "streams": streams(phase("streams")),
        "ledger": ledger(phase("ledger")),
        "accounts": grown(phase("accounts"), "freehold", "gateway"),
        "population": grown(phase("population"), "ledger", "ledger"),
        "checkpoint": grown(phase("checkpoint"), "ledger", "ledger"),
        "memory": growth,
    }
    found["bars"] = [
        {"what": each.what, "wanted": each.wanted, "value": each.value, "met": each.met} for each in bars(found)
    ]
    return found


def rows(head: list[str], body: Iterable[list[str]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join([*lines, *("| " + " | ".join(line) + " |" for line in body)])


def plain_rows(found: dict[str, Any]) -> str:
    head = ["", "callers", "requests/s", "p50 ms", "p99 ms", "added p50 ms", "added p99 ms", "CPU µs/call",
            "PostgreSQL CPU µs/call", "RSS MB"]  # fmt: skip
    body: list[list[str]] = []

    def ms(value: float | None) -> str:
        return shown(None if value is None else value / 1000, places=2)

    for size in ("1", "16", "64"):
        for target, by_size in found.items():
            at = by_size.get(size)
            if at is None:
                continue
            added = ["", ""] if target == "direct" else [ms(at["added_p50_us"]), ms(at["added_p99_us"])]
            failed = f" ({at['failed']} failed)" if at["failed"] else ""
            row = [NAMES[target], size, shown(at["rps"]) + failed, ms(at["p50_us"]), ms(at["p99_us"]), *added]
            body.append([*row, shown(at["cpu_us"]), shown(at["postgres_cpu_us"]), shown(at["rss_mb"])])
    return rows(head, body)


def stream_rows(found: dict[str, Any]) -> str:
    head = ["", "streams at a time", "first token p50 ms", "p99 ms", "added p50 ms", "added p99 ms", "broken",
            "chunks lost", "CPU µs/chunk", "share of a core"]  # fmt: skip
    body: list[list[str]] = []

    def ms(value: float | None) -> str:
        return shown(None if value is None else value / 1000, places=2)

    for size in ("200", "1000"):
        for target, by_size in found.items():
            at = by_size.get(size)
            if at is None:
                continue
            added = ["", ""] if target == "direct" else [ms(at["added_p50_us"]), ms(at["added_p99_us"])]
            share = "" if at["core_share"] is None else f"{at['core_share']:.0%}"
            counts = [f"{at['broken']:,} of {at['streams']:,}", f"{at['lost_chunks']:,}"]
            row = [NAMES[target], f"{int(size):,}", ms(at["first_p50_us"]), ms(at["first_p99_us"]), *added, *counts]
            body.append([*row, shown(at["cpu_us_per_chunk"]), share])
    return rows(head, body)


def page(found: dict[str, Any], notes: str) -> str:
    """RESULTS.md."""
    about = found["machine"]
    versions = found["versions"]
    checked = bars(found)
    met = sum(bar.met is True for bar in checked)
    parts = [
        "# Freehold measured beside what people use today",
        "",
        f"Made by `make bench` ({found['mode']} run) on {found['date']}; figures in [results.json](results.json). "
        "Medians over the rounds; every ratio and every addition is taken within a round, of neighbours.",
        "",
        f"Machine: {about['cores']} cores of {about['cpu']}, {about['memory_gb']} GB, Linux {about['kernel']}, "
        f"load average {about['load_average']} before the run and {found['load_average_after']} after it. "
        f"Python {about['python']}, PostgreSQL {found['postgres']}, "
        + ", ".join(f"{NAMES[name]} {version}" for name, version in versions.items() if name != "direct")
        + ".",
        "",
        "![requests a second](results.svg)",
        "",
        f"## Bars: {met} of {len(checked)} met",
        "",
        rows(
            ["bar", "wanted", "measured", ""],
            [
                [
                    bar.what,
                    bar.wanted,
                    bar.value_shown,
                    {True: "met", False: "**missed**", None: "not measured"}[bar.met],
                ]
                for bar in checked
            ],
        ),
        "",
        "## Requests a second, one core for the gateway, one for the rest",
        "",
        "Everybody answers the same chat completion from the same mock upstream; PostgreSQL, mock and load generator "
        "share the other core. *No gateway* is load generator and mock alone: what they can do, on that one core. "
        "Freehold checks the key, its three caps and the price, holds, settles and posts each call, durably (fsync on), on one hot "
        "account. LiteLLM runs without database and without keys, Portkey without keys: their best case. nginx only "
        "passes bytes on.",
        "",
        plain_rows(found["pinned"]),
        "",
        "## The same without pinning",
        "",
        f"Ratios at 64 callers: {ratios(found, 'unpinned_')}.",
        "",
        plain_rows(found["unpinned"]),
        "",
        "## Streams",
        "",
        "50 content chunks each, one every 30 ms at 200 streams and every 120 ms at 1,000; starts are spread evenly over "
        "the length of one stream, so that all of them are open at once in the middle.",
        "",
        stream_rows(found["streams"]),
        "",
        "## The ledger alone",
        "",
        "Durable hold+settle pairs by 64 callers in one process on one core, PostgreSQL on the other.",
        "",
        rows(
            ["accounts", "pairs/s", "hold, median ms", "CPU µs/pair", "PostgreSQL CPU µs/pair"],
            [
                [
                    "one, hot" if size == "1" else f"{int(size):,}",
                    shown(at["pairs_per_s"]),
                    shown(at["hold_ms"], places=2),
                    shown(at["cpu_us"]),
                    shown(at["postgres_cpu_us"]),
                ]
                for size, at in found["ledger"].items()
            ],
        ),
        "",
        "## Cost per call, and how many accounts there are",
        "",
        "CPU of gateway (or ledger) and PostgreSQL together. Through the gateway 1,000 accounts call, spread over all; "
        "the ledger alone draws any account at random, so that with many of them hardly one is drawn twice. Both have "
        "databases of their own and take turns within each round. Every account has called today, and every page that "
        "a call changes was changed since the last checkpoint, as between two checkpoints. " + checkpoint_line(found),
        "",
        rows(
            ["", "accounts", "CPU µs/call", "calls/s"],
            [
                line
                for name, what in (("accounts", "gateway"), ("population", "ledger alone"))
                if (grew := found[name])
                for line in (
                    [what, f"{grew['few']:,}", shown(grew["cpu_us_few"]), shown(grew["rate_few"])],
                    [what, f"{grew['many']:,}", shown(grew["cpu_us_many"]), shown(grew["rate_many"])],
                )
            ],
        ),
        "",
        "## Memory",
        "",
        memory_line(found),
        "",
        books_line(found),
        "",
        "## What could not be run",
        "",
        absences(found),
        "",
    ]
    return "\n".join(parts) + (f"\n{notes}" if notes else "")


def checkpoint_line(found: dict[str, Any]) -> str:
    """What the first change of a page costs more."""
    at = found.get("checkpoint")
    if not at:
        return ""
    return (
        f"Right after one, when PostgreSQL logs each page whole at its first change, a pair of the ledger alone costs "
        f"{shown(at['cpu_us_many'])} µs on {at['many']:,} accounts, {shown(at['cpu_us_few'])} on {at['few']:,}."
    )


def ratios(found: dict[str, Any], prefix: str) -> str:
    texts = {
        peer: shown(found["ratios"][f"{prefix}ratio_{peer}"], "x", places=2 if peer == "nginx" else 1)
        for peer in ("nginx", "litellm", "portkey")
    }
    return ", ".join(f"{text} {NAMES[peer]}'s" for peer, text in texts.items())


def books_line(found: dict[str, Any]) -> str:
    books = found["books"]
    if books is None:
        return "The books were not checked in this run."
    agree = books["balanced"]
    return f"After all calls of the run the books {'agree' if agree else 'DIFFER'} to the nano-USD."


def memory_line(found: dict[str, Any]) -> str:
    growth = found["memory"]
    if growth is None:
        return "Not measured."
    return (
        f"Freehold's worker: {growth['mb_first']:.0f} MB after {growth['first']:,} calls of its life, "
        f"{growth['mb_last']:.0f} MB after {growth['last']:,}."
    )


def absences(found: dict[str, Any]) -> str:
    lines = [f"- {NAMES.get(name, name)}: {why}" for name, why in found["absent"].items()]
    lines += [f"- The phase {name} broke off: {why}" for name, why in found["failed"].items()]
    if found["streams"].get("litellm") and "1000" not in found["streams"]["litellm"]:
        lines.append("- LiteLLM, 1,000 streams: left out of this run; what 200 of them come to is in the table.")
    for target, by_size in found["streams"].items():
        for size, at in by_size.items():
            if at["broken"]:
                said = " ".join((at["failure"] or "no answer").split())[:160].replace("|", "/")
                lines.append(
                    f"- {NAMES[target]}, {int(size):,} streams: {at['broken']:,} of {at['streams']:,} were not "
                    f"answered whole. First: `{said}`"
                )
            if target == "litellm":
                lines.append(f"- LiteLLM's {int(size):,} streams were run once only: they take that long.")
    return "\n".join(lines) or "Nothing."


# The plot


def plot(found: dict[str, Any]) -> str:
    """Requests a second at 1, 16 and 64 callers, one panel each on a logarithmic axis, as SVG."""
    import math

    colours = {"nginx": "#8a8f98", "freehold": "#0b7a5c", "portkey": "#b8860b", "litellm": "#a23b3b"}
    targets = [name for name in found["pinned"] if name in colours]
    width, height, left, top, panel = 760, 320, 60, 50, 220
    low, high = 1.0, 5.0
    for target in targets:
        for at in found["pinned"][target].values():
            if at["rps"]:
                low = min(low, math.floor(math.log10(at["rps"])))
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="12">',
        f'<rect width="{width}" height="{height}" fill="white"/>',
        '<text x="16" y="24" font-size="15">Requests a second, one core for the gateway (logarithmic)</text>',
    ]

    def y(value: float) -> float:
        share = (math.log10(max(value, 10**low)) - low) / (high - low)
        return height - 50 - share * (height - 50 - top)

    for power in range(int(low), int(high) + 1):
        line = y(10**power)
        out.append(f'<line x1="{left}" x2="{width - 16}" y1="{line:.1f}" y2="{line:.1f}" stroke="#ddd"/>')
        out.append(f'<text x="{left - 8}" y="{line + 4:.1f}" text-anchor="end">{10**power:,}</text>')
    for number, size in enumerate(("1", "16", "64")):
        start = left + 10 + number * (panel + 10)
        out.append(
            f'<text x="{start + panel / 2 - 20:.0f}" y="{height - 28}" text-anchor="middle">'
            f"{size} caller{'s' if size != '1' else ''}</text>"
        )
        for at, target in enumerate(targets):
            value = found["pinned"][target].get(size, {}).get("rps")
            if not value:
                continue
            x, line = start + at * 50, y(value)
            out.append(
                f'<rect x="{x}" y="{line:.1f}" width="40" height="{height - 50 - line:.1f}" fill="{colours[target]}"/>'
                f'<text x="{x + 20}" y="{line - 4:.1f}" text-anchor="middle" font-size="11">{value:,.0f}</text>'
            )
    for at, target in enumerate(targets):
        x = left + 10 + at * 160
        out.append(f'<rect x="{x}" y="{height - 16}" width="10" height="10" fill="{colours[target]}"/>')
        out.append(f'<text x="{x + 16}" y="{height - 7}">{NAMES[target]}</text>')
    return "\n".join([*out, "</svg>", ""])


def write(folder: Path, samples: list[Sample], about: dict[str, Any]) -> None:
    """Write the three files into `folder`. NOTES.md, where there is one, ends the page."""
    found = results(samples, about)
    notes = folder / "NOTES.md"
    (folder / "results.json").write_text(json.dumps(found, indent=1) + "\n", "utf-8")
    (folder / "results.svg").write_text(plot(found), "utf-8")
    (folder / "RESULTS.md").write_text(page(found, notes.read_text("utf-8") if notes.exists() else ""), "utf-8")
