"""What can be wrong with a query."""

from __future__ import annotations

from dtp.errors import LocalError


class QueryError(LocalError):
    """A query can't be understood or worked out; the message tells where and what to do."""

    code = "graph-query"


class QueryLimit(QueryError):
    """A query takes more than `Graph.query_budget` allows; `what` is "seconds", "rows", "steps" or "memory"."""

    code = "graph-query-limit"

    def __init__(self, message: str, what: str) -> None:
        super().__init__(message)
        self.what = what


class UnsupportedQuery(QueryError):
    """A query asks for a part of openCypher that isn't there (docs/query.md); the message tells which."""

    code = "graph-query-unsupported"
