"""What a market refuses, said before it is asked."""

from freehold.problems import Problem


class BeyondCredit(Problem):
    """{reason}"""

    status = 409
    code = "beyond_credit"
