"""What the supervisor tells a worker."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from freehold.chain import deployments
from freehold.chain.model import DEV_CHAIN_ID, Deployment
from freehold.upstream.catalogue import Catalogue
from freehold.upstream.model import Kind


@dataclass(frozen=True, slots=True)
class Plan:
    """What a worker is told. Holds secrets: it travels by a pipe, never by a command line or the environment."""

    socket: int
    """File descriptor of the listening socket."""
    database_url: str
    rpc_url: str
    deployment: str
    """Path of the deployment file."""
    upstreams: tuple[Mapping[str, Any], ...]
    public_url: str
    workers: int
    started_at_s: float
    operator: str | None
    confirmations: int | None
    default_output_tokens: int
    body_limit_bytes: int
    log_level: str
    log_format: str = "text"
    metrics: str | None = None
    """Path of the folder that the workers' numbers are in; None: nobody reads them."""

    run: str | None = None
    """Path of the folder where the supervisor says what a reload brought; None: there is no supervisor."""
    supervisor: int | None = None
    """Its process id."""
    answer_key: str | None = None
    """Of stored answers, in hexadecimal digits; None: one that ends with the worker."""
    otlp_endpoint: str | None = None
    """Where traces go; None: there are none."""
    receipt_key: str | None = None
    """Of the operator's receipts, in hexadecimal digits; None: they aren't signed."""
    x402: bool | None = None
    """Whether payments are taken; None: on the dev chain."""
    x402_least: int = 1_000
    """The least that a call is asked for, base units of USDC."""
    operator_secret: str | None = None
    """Key of the wallet that carries payments to the chain, in hexadecimal digits; None: the dev chain's operator."""

    @property
    def data(self) -> Path | None:
        """The data directory, which the supervisor's folder is in."""
        return Path(self.run).parent if self.run else None

    def dump(self) -> bytes:
        return json.dumps(asdict(self)).encode()

    def load_deployment(self) -> Deployment:
        """Raises DeploymentBroken."""
        return load_deployment(Path(self.deployment), self.operator, self.confirmations)


def load_deployment(path: Path, operator: str | None, confirmations: int | None) -> Deployment:
    """The deployment with what the settings change of it. Raises DeploymentBroken."""
    found = deployments.load(path)
    if operator is not None:
        found = replace(found, operator=operator)
    return found if confirmations is None else replace(found, confirmations=confirmations)


def takes_payments(x402: bool | None, chain_id: int) -> bool:
    """Whether payments by x402 are taken: as the setting says, else on the dev chain."""
    return chain_id == DEV_CHAIN_ID if x402 is None else x402


def first_chat_model(catalogue: Catalogue) -> str:
    """The model that examples call."""
    models = catalogue.models()
    chats = [model.id for model in models if model.kind is Kind.CHAT]
    return (chats or [model.id for model in models] or ["MODEL"])[0]
