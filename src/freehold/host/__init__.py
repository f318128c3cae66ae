"""Child processes on this machine: a database, a dev chain, workers. Knows no domain."""
