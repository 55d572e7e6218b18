"""The page, the metrics and the health answer of a running daemon, over plain HTTP on this machine. Read-only."""
