"""Freehold: a day's AI inference as an asset, beside an ordinary pay-per-call API."""

__version__ = "0.1.0"
