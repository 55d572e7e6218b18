"""All modules of ours as a table, to read any object or event of theirs by its type."""

from __future__ import annotations

from typing import Any, Final

from dtp.chain import card, channel, host, lock, pass_, pipe, show
from dtp.chain.errors import MalformedObject
from dtp.chain.packages.deployments import Deployments
from dtp.chain.values import MoveSchema
from dtp.sui.names import SuiNameError, format_address, parse_type

#: Every module of the packages that ship.
SCHEMAS: Final[tuple[MoveSchema, ...]] = (
    *(host.SCHEMA, pass_.SCHEMA, channel.SCHEMA, pipe.SCHEMA),
    *(lock.SCHEMA, card.SCHEMA, show.SCHEMA),
)


def find_class(deployments: Deployments, type: str) -> tuple[MoveSchema, Any] | None:
    """Return the module and dataclass of a type of ours, None for one of others."""
    try:
        tag = parse_type(type)
    except SuiNameError:
        return None
    for schema in SCHEMAS:
        deployment = deployments.get(schema.package)
        if deployment is None or not tag.address or format_address(tag.address) != deployment.original_id:
            continue
        if schema.module == tag.module:
            for cls, name in schema.classes().items():
                if name == tag.name:
                    return schema, cls
    return None


def decode_known(deployments: Deployments, type: str, contents: bytes) -> Any | None:
    """Return an object or event of ours as its dataclass; None for those of others, or of another release."""
    found = find_class(deployments, type)
    if found is None:
        return None
    schema, cls = found
    try:
        return schema.decode(cls, contents)
    except MalformedObject:
        return None
