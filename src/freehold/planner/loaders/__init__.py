"""Usage from files: what a format is, how its rows are read, and what is said of those that can't be."""
