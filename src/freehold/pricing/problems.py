"""Pricing's refusals."""

from freehold.problems import Problem


class PriceNotSet(Problem):
    """Model {model} has no price, so it can't be called. The operator sets one with PUT /v1/admin/prices/{model}."""

    status = 404
    code = "model_not_priced"
    retry = False


class InvalidPrice(Problem):
    """{reason}"""

    code = "invalid_price"
