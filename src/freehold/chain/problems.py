"""What the chain's side refuses, or can't do."""

from freehold.problems import Problem


class NodeUnavailable(Problem):
    """The chain's node at {node} can't be used now: {reason}."""

    status = 503
    code = "node_unavailable"
    type = "server_error"

    timed_out = False
    """True when the node took too long; a smaller question may be answered."""


class RpcError(Problem):
    """The chain's node answered {method} with an error: {reason} (code {number})."""

    status = 502
    code = "node_error"
    type = "server_error"

    def __init__(self, *, method: str, number: int, reason: str, data: bytes | None = None) -> None:
        """`data` is what a reverted call returned, if the node said it."""
        super().__init__(method=method, reason=reason.rstrip("."), number=number)
        self.number = number
        self.reason = reason
        self.data = data


class ChainChanged(Problem):
    """{reason}"""

    status = 500
    code = "chain_changed"
    type = "server_error"


class DeploymentBroken(Problem):
    """{reason}"""

    status = 500
    code = "deployment_broken"
    type = "server_error"


class Reverted(Problem):
    """{what} was refused by the contract: {reason}."""

    status = 409
    code = "reverted"

    def __init__(self, *, what: str, reason: str, error: str | None = None) -> None:
        """`error` is the name of the contract's error, when it has one."""
        super().__init__(what=what, reason=reason.rstrip("."))
        self.error = error


class NotEnough(Problem):
    """{name} has {has} and needs {needs}. {mend}"""

    status = 402
    code = "not_enough_tokens"


class WalletRefused(Problem):
    """{reason}"""

    status = 403
    code = "wallet_refused"
    type = "permission_error"


class NotMined(Problem):
    """{what} was sent as {tx_hash} and is not mined after {waited_s} s. It may still be; look again with `freehold status`."""

    status = 504
    code = "not_mined"
    type = "server_error"


class PackageUnavailable(Problem):
    """{package} can't be used: {reason}. Check the network, and fetch it again."""

    status = 502
    code = "package_unavailable"
    type = "server_error"


class NoMarkets(Problem):
    """This chain has no pools and markets yet, or none that belong to its contracts; `freehold dev defi` makes them."""

    status = 404
    code = "no_markets"
