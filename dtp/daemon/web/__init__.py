"""A running daemon's status page, metrics and health check, over plain HTTP on this machine. Read-only."""
