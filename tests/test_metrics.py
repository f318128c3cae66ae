"""Numbers that several processes count, summed exactly."""

import subprocess
import sys
from pathlib import Path

from freehold.metrics import SLOTS, Family, Numbers, exposition, workers

CALLS = Family("calls_total", "counter", "Calls.")
COST = Family("cost_usd_total", "counter", "Cost.", 9)
OPEN = Family("open", "gauge", "Open.")
TOOK = Family("took_seconds", "histogram", "Took.", 6)

CHILD = """
import sys
from pathlib import Path
from freehold.metrics import Numbers
numbers = Numbers.shared(Path(sys.argv[1]))
numbers.add(numbers.slot("calls_total", model="a"), 5)
numbers.add(numbers.slot("cost_usd_total"), 3)
numbers.put(numbers.slot("open"), 7)
print("counted", flush=True)
sys.stdin.read()
"""


def shown(folder: Path, *families: Family) -> list[str]:
    text = exposition(families, workers(folder), {})
    return [line for line in text.splitlines() if not line.startswith("#")]


def test_processes_are_summed_and_an_ended_ones_counters_stay_while_its_gauges_go(tmp_path: Path) -> None:
    mine = Numbers.shared(tmp_path)
    mine.add(mine.slot("calls_total", model="a"), 2)
    mine.add(mine.slot("cost_usd_total"), 2**53)
    mine.put(mine.slot("open"), 1)
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert child.stdout is not None and child.stdout.readline() == b"counted\n"
    assert shown(tmp_path, CALLS, OPEN) == ['calls_total{model="a"} 7', "open 8"]
    assert shown(tmp_path, COST) == ["cost_usd_total 9007199.254740995"]  # more digits than a float has
    child.kill()
    child.communicate()
    assert shown(tmp_path, CALLS, OPEN) == ['calls_total{model="a"} 7', "open 1"]
    heir = Numbers.shared(tmp_path)
    heir.forget(["open"])
    heir.add(heir.slot("calls_total", model="a"))
    assert shown(tmp_path, CALLS, OPEN) == ['calls_total{model="a"} 8', "open 1"]
    assert len(list(tmp_path.iterdir())) == 2


def test_a_histogram_counts_what_is_at_most_each_bound(tmp_path: Path) -> None:
    numbers = Numbers.shared(tmp_path)
    took = numbers.histogram("took_seconds", (1_000, 500_000), route="/v1")
    for value in (1, 1_000, 1_001, 9_000_000):
        took.see(value)
    assert shown(tmp_path, TOOK) == [
        'took_seconds_bucket{route="/v1",le="0.001"} 2',
        'took_seconds_bucket{route="/v1",le="0.5"} 3',
        'took_seconds_bucket{route="/v1",le="+Inf"} 4',
        'took_seconds_sum{route="/v1"} 9.002002',
        'took_seconds_count{route="/v1"} 4',
    ]


def test_a_label_is_escaped(tmp_path: Path) -> None:
    numbers = Numbers.shared(tmp_path)
    numbers.add(numbers.slot("calls_total", model='a"\\\n#ü'))
    assert shown(tmp_path, CALLS) == ['calls_total{model="a\\"\\\\\\n#ü"} 1']


def test_too_many_names_and_too_large_numbers_never_fail(tmp_path: Path) -> None:
    numbers = Numbers.shared(tmp_path)
    for number in range(SLOTS + 5):
        numbers.add(numbers.slot("calls_total", model=str(number)), 2**63 - 1)
        numbers.add(numbers.slot("calls_total", model=str(number)))
    spilled = Family("freehold_metrics_spilled_total", "counter", "Spilled.")
    assert shown(tmp_path, spilled) == [f"freehold_metrics_spilled_total {2**63 - 1}"]
    assert {line.rsplit(" ", 1)[1] for line in shown(tmp_path, CALLS)} == {str(2**63 - 1)}


def test_what_is_not_a_workers_is_shown_beside_it(tmp_path: Path) -> None:
    text = exposition([OPEN], workers(tmp_path), {"open": {(("cause", "x"),): 4}})
    assert text == '# HELP open Open.\n# TYPE open gauge\nopen{cause="x"} 4\n'
