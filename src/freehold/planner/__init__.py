"""Rent, hold, or both? From usage and assumptions to a plan."""
