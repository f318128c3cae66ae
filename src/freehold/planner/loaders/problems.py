"""Refusals of files of usage."""

from freehold.planner.model import BadRow
from freehold.problems import Problem


class UnreadableFile(Problem):
    """{file} can't be read: {reason}"""

    code = "unreadable_file"


class UnknownFormat(Problem):
    """{file} is in no format that is known here: {reason} Known are {known}, and any table or JSON with a time and a cost, tokens or requests."""

    code = "unknown_format"


class UnknownListPrices(Problem):
    """{file} is no history of list prices: {reason} One is a table in UTF-8 with the columns observed_date, provider, model, input_usd_per_mtok and output_usd_per_mtok."""

    code = "unknown_list_prices"


class MixedTimes(Problem):
    """{dated} has dates, and {undated} counts seconds from its own start, so they can't be put on one calendar: plan them apart."""

    code = "mixed_times"


class NoUsage(Problem):
    """There is no row of usage in {files}."""

    code = "no_usage"


class UnpricedUsage(Problem):
    """{requests} requests of {models} have no price, while others have one: name their price, or what a request costs."""

    code = "unpriced_usage"


class BadRows(Problem):
    """{count} can't be read, so nothing was taken from the files: {first}. Mend them, or ask to leave such rows out."""

    code = "bad_rows"

    def __init__(self, rows: tuple[BadRow, ...], count: int) -> None:
        """`rows`: the first of them."""
        self.rows = rows
        told = "; ".join(str(row) for row in rows[:3])
        more = f"; and {count - 3} more" if count > 3 else ""
        super().__init__(count="1 row" if count == 1 else f"{count} rows", first=told + more)
