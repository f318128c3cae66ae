"""The account API: everything about an account that isn't a model call."""
