"""Usage of every known format, told by its content; and rows that can't be read."""

import gzip
import io
import json
import tarfile
from collections.abc import Mapping
from pathlib import Path

import pytest

from freehold.clock import Day
from freehold.gateway.account import bill, usage
from freehold.planner.loaders import layouts, table
from freehold.planner.loaders.load import load
from freehold.planner.loaders.problems import (
    BadRows,
    MixedTimes,
    NoUsage,
    UnknownFormat,
    UnpricedUsage,
    UnreadableFile,
)
from freehold.planner.loaders.rows import RAW_LINE
from freehold.planner.loaders.trace import Trace
from freehold.planner.model import Unit
from freehold.pricing.model import INPUT, OUTPUT, Price

FIRST = Day(20_780)
"""2026-11-23."""

DATED = "2026-11-23T08:00:00Z"
NEXT = "2026-11-24T08:00:00Z"


def own_row(**cells: object) -> str:
    plain: dict[str, object] = {"at": DATED, "model": "m", "input": 3, "output": 4, "cost_nano": 1_500_000_000}
    return ",".join(str({**plain, **cells}.get(name, "0")) for name in usage.CHARGE_COLUMNS)


def own(*rows: str) -> str:
    return "\r\n".join((",".join(usage.CHARGE_COLUMNS), *rows, ""))


AZURE = (
    "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:17:03.9799600,4808,10\n2023-11-16 18:17:04.0319600,3180,8"
)
BURSTGPT = "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n5,ChatGPT,472,18,490,Conversation log\n86405,GPT-4,1087,230,1317,API log\n"
MOONCAKE = '{"timestamp": 27482, "input_length": 6955, "output_length": 52, "hash_ids": [46, 47]}\n{"timestamp": 86427482, "input_length": 5, "output_length": 1, "hash_ids": []}\n'
SERVEGEN = "0,2.0,1.01,Gamma,0.97,0.07\n600,3.0,,,0,0\n1200,0,0,,0,0\n86400,1.5,1,Weibull,1,1\n"
OPENAI_CSV = (
    "start_time,end_time,start_time_iso,end_time_iso,project_id,num_model_requests,model,input_tokens,output_tokens,input_cached_tokens\n"
    "1795392000,1795478400,2026-11-23T00:00:00+00:00,2026-11-24T00:00:00+00:00,p,5,gpt-x,1000,500,800\n"
    "1795478400,1795564800,2026-11-24T00:00:00+00:00,2026-11-25T00:00:00+00:00,,,,,,\n"
)
OPENAI_JSON = json.dumps(
    {
        "object": "page",
        "data": [
            {
                "object": "bucket",
                "start_time": 1795392000,
                "end_time": 1795478400,
                "results": [
                    {
                        "object": "organization.usage.completions.result",
                        "input_tokens": 1000,
                        "output_tokens": 500,
                        "input_cached_tokens": 800,
                        "num_model_requests": 5,
                        "model": "gpt-x",
                    }
                ],
            },
            {"object": "bucket", "start_time": 1795478400, "end_time": 1795564800, "results": []},
        ],
        "has_more": False,
    }
)
OPENAI_COSTS = json.dumps(
    {
        "data": [
            {
                "start_time": 1795392000,
                "results": [
                    {
                        "object": "organization.costs.result",
                        "amount": {"value": 0.06, "currency": "usd"},
                        "line_item": "gpt-x",
                    }
                ],
            }
        ]
    }
)
LITELLM_CSV = (
    "request_id,call_type,api_key,spend,total_tokens,prompt_tokens,completion_tokens,startTime,endTime,model,metadata\n"
    'r1,acompletion,hash,0.25,30,20,10,2026-11-23 10:00:00.125,2026-11-23 10:00:02,gpt-x,"{""a"": ""line 1\nline 2"", ""b"": 1}"\n'
    "r2,acompletion,hash,0.5,3,2,1,2026-11-24T10:00:00+02:00,2026-11-24 10:00:02,gpt-x,{}\n"
)
LITELLM_JSON = json.dumps(
    [
        {"request_id": "r1", "spend": 0.25, "prompt_tokens": 20, "completion_tokens": 10, "startTime": "2026-11-23T10:00:00.125000", "model": "gpt-x", "metadata": {"x": [1]}},
        {"request_id": "r2", "spend": 0.5, "prompt_tokens": 2, "completion_tokens": 1, "startTime": "2026-11-24T10:00:00+02:00", "model": "gpt-x"},
    ],
    indent=1,
)  # fmt: skip
OWN_JSON = json.dumps(
    {"data": [{"request_id": "r", "at": DATED, "model": "m", "usage": {"input": 3, "output": 4}, "cost_nano": 1_500_000_000}], "next_cursor": None}
)  # fmt: skip
OWN_DAYS = json.dumps(
    {"data": [{"group": "2026-11-23T00:00:00Z", "calls": 7, "usage": {"input": 3, "output": 4}, "cost_nano": 1_500_000_000}]}
)  # fmt: skip
BILL_CSV = (
    ",".join(bill.COLUMNS)
    + "\r\nopening,,,,,prepaid,,9.00,9000000000,\r\ncharge,2026-11-23,m,1,k,prepaid,7,-1.50,-1500000000,\r\nclosing,,,,,prepaid,,7.50,7500000000,\r\n"
)
BILL_JSON = json.dumps(
    {
        "month": "2026-11",
        "purses": [{"source": "prepaid", "used_nano": 1}],
        "by_day": [{"group": "2026-11-23", "calls": 7, "cost_nano": 1_500_000_000}],
        "lines": [
            {
                "day": "2026-11-23",
                "model": "m",
                "key_id": 1,
                "source": "prepaid",
                "calls": 7,
                "cost_nano": 1_500_000_000,
            }
        ],
    }
)

FORMATS: Mapping[str, tuple[str, str, int, float, float]] = {
    "own calls": (own(own_row()), "Freehold usage, by call", 1, 1.0, 1.5),
    "own calls as JSON": (OWN_JSON, "Freehold usage, by call", 1, 1.0, 1.5),
    "own days as JSON": (OWN_DAYS, "Freehold usage, added up", 1, 7.0, 1.5),
    "bill": (BILL_CSV, "Freehold bill", 1, 7.0, 1.5),
    "bill as JSON": (BILL_JSON, "Freehold bill", 1, 7.0, 1.5),
    "OpenAI usage": (OPENAI_CSV, "OpenAI usage", 2, 5.0, 0.0),
    "OpenAI usage as JSON": (OPENAI_JSON, "OpenAI usage", 2, 5.0, 0.0),
    "OpenAI costs": (OPENAI_COSTS, "OpenAI costs", 1, 0.0, 0.06),
    "LiteLLM": (LITELLM_CSV, "LiteLLM spend logs", 2, 2.0, 0.75),
    "LiteLLM as JSON": (LITELLM_JSON, "LiteLLM spend logs", 2, 2.0, 0.75),
    "Azure": (AZURE, "Azure LLM inference trace", 2, 2.0, 0.0),
    "BurstGPT": (BURSTGPT, "BurstGPT", 2, 2.0, 0.0),
    "Mooncake": (MOONCAKE, "Mooncake", 2, 2.0, 0.0),
    "ServeGen": (SERVEGEN, "ServeGen client series", 4, 3_900.0, 0.0),
}
"""Content, format, rows, requests, USD stated."""


def read(folder: Path, *contents: str | bytes, name: str = "a.log", leave_out_bad_rows: bool = False) -> Trace:
    paths = []
    for number, content in enumerate(contents):
        path = folder / f"{number}-{name}"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        paths.append(path)
    return load(paths, leave_out_bad_rows=leave_out_bad_rows)


@pytest.mark.parametrize("known", FORMATS)
def test_a_format_is_told_by_its_content_whatever_the_file_is_called(tmp_path: Path, known: str) -> None:
    content, name, rows, requests, cost = FORMATS[known]
    made = read(tmp_path, content, name="notes.txt")
    assert [(file.format, file.rows) for file in made.provenance.files] == [(name, rows)]
    assert made.daily["requests"].sum() == pytest.approx(requests)
    assert made.daily["cost"].sum() == pytest.approx(cost)


@pytest.mark.parametrize("known", FORMATS)
def test_a_format_is_read_the_same_from_gzip_and_from_tar(tmp_path: Path, known: str) -> None:
    content = FORMATS[known][0].encode()
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        member = tarfile.TarInfo("folder/0-a.log")
        member.size = len(content)
        archive.addfile(member, io.BytesIO(content))
    plain = read(tmp_path, content)
    assert read(tmp_path, gzip.compress(content)).daily.equals(plain.daily)
    assert read(tmp_path, packed.getvalue()).daily.equals(plain.daily)


@pytest.mark.parametrize("content", [own(own_row()), OWN_JSON, OWN_DAYS], ids=["CSV", "JSON", "days"])
def test_tokens_of_our_own_usage_are_read(tmp_path: Path, content: str) -> None:
    made = read(tmp_path, content).daily
    assert (made["input"].sum(), made["output"].sum()) == (3.0, 4.0)


def test_several_files_are_added_up_day_by_day(tmp_path: Path) -> None:
    made = read(tmp_path, own(own_row()), own(own_row(at=NEXT), own_row()), OWN_DAYS).usage()
    assert made.first_day == FIRST
    assert made.demand.tolist() == [4.5, 1.5]
    assert made.requests is not None
    assert made.requests.tolist() == [9.0, 1.0]


def test_two_formats_that_tell_of_the_same_days_are_warned_of(tmp_path: Path) -> None:
    both = read(tmp_path, OPENAI_JSON, OPENAI_COSTS).provenance.warnings
    assert both == ("0-a.log and 1-a.log tell of the same days; calls that are in both are counted twice.",)
    assert read(tmp_path, OPENAI_COSTS, own(own_row(at=NEXT))).provenance.warnings == ()
    assert read(tmp_path, own(own_row()), own(own_row())).provenance.warnings == ()


def test_a_folder_is_its_files(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(own(own_row()), "utf-8")
    (tmp_path / "b.csv").write_text(own(own_row(at=NEXT)), "utf-8")
    assert load([tmp_path]).usage().demand.tolist() == [1.5, 1.5]


def test_each_file_of_client_series_is_a_client(tmp_path: Path) -> None:
    packed = tmp_path / "clients.tar"
    with tarfile.open(packed, "w") as archive:
        for number in (10, 2):
            content = SERVEGEN.replace("2.0", str(number)).encode()
            member = tarfile.TarInfo(f"m-small/chunk-{number}-trace.csv")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    made = load([packed])
    assert made.clients == ("chunk-2", "chunk-10")
    assert made.usage(client="chunk-10").demand.tolist() == [13 * 600, 900]
    assert made.usage().demand.tolist() == [13 * 600 + 5 * 600, 1_800]
    assert made.usage(client="chunk-2").provenance.files[0].client == "chunk-2"


def test_a_row_of_a_rate_stands_for_the_step_of_its_series(tmp_path: Path) -> None:
    hourly = SERVEGEN.replace("600,", "3600,", 1).replace("1200,", "7200,", 1)
    assert read(tmp_path, hourly).usage().demand.tolist() == [5 * 3_600, 1.5 * 3_600]


def test_the_median_request_is_told(tmp_path: Path) -> None:
    head = AZURE.splitlines()[0]
    rows = [f"2023-11-16 18:17:0{n},{n * 10},{n}" for n in range(1, 5)]
    made = read(tmp_path, "\n".join([head, *rows])).provenance
    assert (made.median_input_tokens, made.median_output_tokens) == (25.0, 2.5)


@pytest.mark.parametrize(
    ("written", "read_as"),
    [
        ("2026-11-23 23:59:59.999", FIRST),
        ("2026-11-23T23:59:59.9999999Z", FIRST),
        ("2026-11-23T23:30:00-01:00", FIRST.next()),
        ("2026-11-24 00:30:00+0100", FIRST),
        ("2026-11-24T00:30+01", FIRST),
        ("2026-11-23", FIRST),
        ("2026-11-23 23:59", FIRST),
        ("1795392000", FIRST),
        ("1795392000123", FIRST),
        ("1795392000123456", FIRST),
    ],
)
def test_a_time_is_read_in_its_own_zone_or_as_utc(tmp_path: Path, written: str, read_as: Day) -> None:
    made = read(tmp_path, f"time,usd\n{written},1\n")
    assert made.usage().first_day == read_as


def test_times_without_a_zone_are_said_to_be_taken_as_utc(tmp_path: Path) -> None:
    assert read(tmp_path, AZURE).provenance.notes == ("2 times name no zone; they are taken as UTC.",)
    assert read(tmp_path, own(own_row())).provenance.notes == ()


def test_a_series_without_dates_says_so(tmp_path: Path) -> None:
    made = read(tmp_path, SERVEGEN).provenance
    assert not made.dated
    assert "no date and no weekday" in made.notes[0]


def test_dates_and_seconds_from_a_start_are_not_put_on_one_calendar(tmp_path: Path) -> None:
    with pytest.raises(MixedTimes, match="counts seconds from its own start"):
        read(tmp_path, AZURE, SERVEGEN)


BAD = {
    "a number": ("2026-11-23,abc", 3, "abc", "usd is not a number"),
    "below zero": ("2026-11-23,-1", 3, "-1", "usd is not between 0 and 1e+15"),
    "infinite": ("2026-11-23,inf", 3, "inf", "usd is not between 0 and 1e+15"),
    "not a number": ("2026-11-23,nan", 3, "nan", "usd is not a number"),
    "a time": ("yesterday,1", 3, "yesterday", "time is not a time such as 2026-11-23T08:00:00Z or unix seconds"),
    "no time": (",1", 3, "", "time is not a time such as 2026-11-23T08:00:00Z or unix seconds"),
    "a day that isn't": ("2026-02-30,1", 3, "2026-02-30", "time is not a time such as 2026-11-23T08:00:00Z or unix seconds"),
    "a far day": ("2100-01-01,1", 3, "2100-01-01", "time is not a time such as 2026-11-23T08:00:00Z or unix seconds"),
    "fields": ("2026-11-23,1,2", 3, "2026-11-23,1,2", "has 3 fields where the file has 2"),
    "a field": ("2026-11-23", 3, "2026-11-23", "has 1 fields where the file has 2"),
}  # fmt: skip


@pytest.mark.parametrize("quoted", [False, True])
@pytest.mark.parametrize("fault", BAD)
def test_a_bad_row_is_named_by_file_line_value_and_reason(tmp_path: Path, fault: str, quoted: bool) -> None:
    row, line, value, reason = BAD[fault]
    first = '"2026-11-22",1' if quoted else "2026-11-22,1"
    with pytest.raises(BadRows) as refused:
        read(tmp_path, f"time,usd\n{first}\n{row}\n2026-11-24,1\n", name="spend.csv")
    assert [(bad.file, bad.line, bad.value, bad.reason) for bad in refused.value.rows] == [
        ("0-spend.csv", line, value, reason)
    ]
    assert f"0-spend.csv, line 3: {value!r}: {reason}" in refused.value.message


def test_with_a_bad_row_nothing_is_taken_unless_such_rows_may_be_left_out(tmp_path: Path) -> None:
    content = "time,usd\n2026-11-22,1\n2026-11-23,x\n\n2026-11-24,2\n"
    with pytest.raises(BadRows, match="nothing was taken"):
        read(tmp_path, content)
    made = read(tmp_path, content, leave_out_bad_rows=True)
    assert made.usage().demand.tolist() == [1.0, 0.0, 2.0]
    assert made.provenance.bad_row_count == 1
    assert [bad.line for bad in made.provenance.bad_rows] == [3]
    assert made.provenance.warnings == ("1 bad row is left out.",)


def test_a_missing_number_that_must_be_there_makes_a_row_bad(tmp_path: Path) -> None:
    with pytest.raises(BadRows, match="line 4: '': generatedtokens is missing"):
        read(tmp_path, AZURE + "\n2023-11-16 18:17:05,1,\n")


def test_more_cached_than_input_makes_a_row_bad(tmp_path: Path) -> None:
    with pytest.raises(BadRows, match="line 2: '1000': more input is cached than there is"):
        read(tmp_path, OPENAI_CSV.replace(",800\n", ",1001\n"))


def test_a_foreign_currency_makes_a_row_bad(tmp_path: Path) -> None:
    with pytest.raises(BadRows, match="amount_currency is not usd"):
        read(tmp_path, OPENAI_COSTS.replace("usd", "eur"))


def test_lines_are_counted_through_quotes_that_span_lines(tmp_path: Path) -> None:
    with pytest.raises(BadRows, match="line 4: 'x': spend is not a number"):
        read(tmp_path, LITELLM_CSV.replace("hash,0.5", "hash,x"))


def test_a_line_that_is_no_json_is_a_bad_row(tmp_path: Path) -> None:
    with pytest.raises(BadRows, match=r"line 2: '\{\"timestamp\": 1': no JSON"):
        read(tmp_path, MOONCAKE.splitlines()[0] + '\n{"timestamp": 1\n[1]\n' + MOONCAKE)


def test_an_entry_that_is_no_object_is_a_bad_row(tmp_path: Path) -> None:
    with pytest.raises(BadRows, match="line 2: '7': no object"):
        read(tmp_path, '[{"date": "2026-11-23", "usd": 1},\n 7]')


@pytest.mark.parametrize("size", [1, 7, 64, 1_000])
def test_rows_are_whole_wherever_a_block_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    rows = [
        f'2026-11-{1 + n % 28:02},{n},"a ""b""\n{n}"' if n % 3 else f"2026-11-{1 + n % 28:02},{n},c" for n in range(99)
    ]
    content = "\n".join(["date,usd,note", *rows]).encode()
    found = [text for line, block in table.blocks(io.BytesIO(content), size) for text in [(line, block)]]
    assert b"".join(block for _, block in found) == content
    assert all(content[: content.index(block)].count(b"\n") + 1 == line for line, block in found)
    assert all(block.count(b'"') % 2 == 0 for _, block in found)


PLAIN = table.Shape(layouts.Layout("table", "time", cost="usd"), ("time", "note", "usd"), ",", 1)


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_later_block_is_read_at_once_and_its_lines_are_counted_on(end: str) -> None:
    block = end.join(["2026-11-23,,1", "2026-11-24,x y,2", ""]).encode()
    columns, bad = table.texts(9, block, PLAIN)
    assert columns.to_dict(as_series=False) == {
        "time": ["2026-11-23", "2026-11-24"],
        "usd": ["1", "2"],
        RAW_LINE: [9, 10],
    }
    assert bad == []


@pytest.mark.parametrize("blank", ["", "\n"])
def test_rows_of_a_later_block_with_fields_too_many_and_too_few_are_each_bad(blank: str) -> None:
    block = f"2026-11-23,a,1\n2026-11-24,2\n2026-11-25,b,c,3\n{blank}2026-11-26,d,4".encode()
    columns, bad = table.texts(9, block, PLAIN)
    assert columns["usd"].to_list() == ["1", "4"]
    assert columns[RAW_LINE].to_list() == [9, 12 + len(blank)]
    assert bad == [
        (10, "2026-11-24,2", "has 2 fields where the file has 3"),
        (11, "2026-11-25,b,c,3", "has 4 fields where the file has 3"),
    ]


def test_a_table_of_no_known_format_is_read_by_its_telling_names(tmp_path: Path) -> None:
    made = read(tmp_path, "Date;Model Name;Spend USD\n2026-11-23;gpt-x;1.25\n")
    assert made.usage().demand.tolist() == [1.25]
    assert "its columns date, model_name, spend_usd are taken by what they say" in made.provenance.notes[-1]


def test_numbered_days_count_from_the_start(tmp_path: Path) -> None:
    made = read(tmp_path, "day,requests\n0,5\n1,6\n3,7\n").usage()
    assert made.demand.tolist() == [5.0, 6.0, 0.0, 7.0]
    assert [(str(gap.first.number), gap.days) for gap in made.provenance.gaps] == [("2", 1)]


REFUSED = {
    "empty": (b"", UnknownFormat, "it is empty"),
    "no telling names": (b"a,b\n1,2\n", UnknownFormat, "names no column for a time"),
    "binary": (b"\x00\x01\x02", UnreadableFile, "not text"),
    "zip": (b"PK\x03\x04rest", UnreadableFile, "a zip archive"),
    "broken gzip": (gzip.compress(AZURE.encode() * 50)[:-20], UnreadableFile, "breaks off"),
    "broken JSON": (b'{"data": [{"date": "2026-11-23", "usd": 1}', UnreadableFile, "no JSON at line 1"),
    "a list of nothing": (b"[]", NoUsage, "no row of usage"),
    "no list": (b'{"error": {"message": "x"}}\n', UnknownFormat, "name no time"),
    "added up by model": (OWN_DAYS.replace("2026-11-23T00:00:00Z", "gpt-x").encode(), UnreadableFile, "export it by day"),
    "a header alone": (AZURE.splitlines()[0].encode(), NoUsage, "no row of usage"),
}  # fmt: skip


@pytest.mark.parametrize("fault", REFUSED)
def test_a_file_that_can_not_be_read_is_refused_with_its_reason(tmp_path: Path, fault: str) -> None:
    content, problem, reason = REFUSED[fault]
    with pytest.raises(problem, match=reason):
        read(tmp_path, content)


def test_a_missing_file_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(UnreadableFile, match=r"gone\.csv can't be read: there is no such file"):
        load([tmp_path / "gone.csv"])


def test_progress_ends_at_all_bytes(tmp_path: Path) -> None:
    path = tmp_path / "a.csv.gz"
    path.write_bytes(gzip.compress(own(*[own_row()] * 5_000).encode()))
    told: list[tuple[int, int]] = []
    load([path], progress=lambda done, total: told.append((done, total)))
    assert told == sorted(told)
    assert told[-1] == (path.stat().st_size, path.stat().st_size)


BOOK = {"gpt-x": Price("gpt-x", {INPUT: 2_000_000_000, "cached_input": 500_000_000, OUTPUT: 8_000_000_000}, "a book")}


def test_tokens_are_priced_by_model_with_cached_ones_apart(tmp_path: Path) -> None:
    made = read(tmp_path, OPENAI_CSV).usage(BOOK.get)
    assert made.unit is Unit.USD
    assert made.demand.tolist() == pytest.approx([(200 * 2 + 800 * 0.5 + 500 * 8) / 1e6, 0.0])
    assert made.models[0].model == "gpt-x"
    assert (made.models[0].input_tokens, made.models[0].cached_tokens) == (1_000.0, 800.0)
    assert "Tokens are priced by a book." in made.provenance.notes


def test_a_trace_that_names_no_model_takes_the_one_that_is_named_for_it(tmp_path: Path) -> None:
    made = read(tmp_path, AZURE).usage(BOOK.get, model="gpt-x")
    assert made.demand.tolist() == pytest.approx([(7_988 * 2 + 18 * 8) / 1e6])


def test_requests_without_a_price_cost_what_a_request_is_said_to_cost(tmp_path: Path) -> None:
    made = read(tmp_path, SERVEGEN).usage(usd_per_request=0.01)
    assert made.unit is Unit.USD
    assert made.demand.tolist() == pytest.approx([30.0, 9.0])


def test_usage_that_nothing_prices_is_relative_and_says_so(tmp_path: Path) -> None:
    made = read(tmp_path, SERVEGEN).usage()
    assert made.unit is Unit.RELATIVE
    assert "Demand is counted in requests, since nothing says what they cost." in made.provenance.notes


def test_usage_of_which_only_a_part_has_a_price_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnpricedUsage, match="1 requests of GPT-4 have no price"):
        read(tmp_path, BURSTGPT).usage({"ChatGPT": BOOK["gpt-x"]}.get)


def test_a_cost_that_is_stated_is_taken_as_it_is(tmp_path: Path) -> None:
    assert read(tmp_path, LITELLM_CSV).usage(BOOK.get).demand.tolist() == [0.25, 0.5]


def test_an_hour_of_rows_is_said_to_be_taken_for_a_day(tmp_path: Path) -> None:
    assert "cover 0.0 hours of a day" in read(tmp_path, AZURE).usage().provenance.warnings[0]
