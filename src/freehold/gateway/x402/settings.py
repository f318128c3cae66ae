"""What paying by x402 is told about where it runs."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PaymentSettings:
    """Amounts in base units of USDC (10^-6), times in seconds."""

    public_url: str = "http://127.0.0.1:8402"
    least_units: int = 1_000
    """The least that a call is asked for: 0.001 USDC. Each payment costs the operator a transaction."""
    timeout_s: int = 300
    """How long a payment may take from the offer on: what its authorization is valid for."""
    longest_s: int = 86_400
    """An authorization that is valid for longer than this beyond `timeout_s` is refused: it would have to be watched."""
    patience_s: float = 60.0
    """How long a request waits for its payment to be confirmed."""
    again_s: float = 30.0
    """A transaction that is not mined for this long is sent again."""
    served_s: int = 12 * 3_600
    """How long after its credit a payment still admits its request; kept answers live longer."""
    look_s: float = 0.1
    """How long to wait between two looks at the chain, which offers nothing to wait for over HTTP."""
