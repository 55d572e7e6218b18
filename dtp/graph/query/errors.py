"""What can be wrong with a query."""

from __future__ import annotations

from dtp.errors import LocalError


class QueryError(LocalError):
    """A query can't be understood, or asks for what isn't supported; the message tells where and what to do."""

    code = "graph-query"
