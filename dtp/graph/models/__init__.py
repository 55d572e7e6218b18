"""Typed models over the nodes of a graph: dataclasses with validation, defaults, versions and migrations."""

from dtp.graph.models.fields import (
    Entries,
    Items,
    Links,
    Members,
    counter,
    items,
    link,
    links,
    mapping,
    members,
    register,
    text,
)
from dtp.graph.models.filling import Old
from dtp.graph.models.kinds import ModelError, ModelMismatch
from dtp.graph.models.model import Changed, Migrated, Model, ModelChanges, Models, migration

__all__ = [
    "Changed",
    "Entries",
    "Items",
    "Links",
    "Members",
    "Migrated",
    "Model",
    "ModelChanges",
    "ModelError",
    "ModelMismatch",
    "Models",
    "Old",
    "counter",
    "items",
    "link",
    "links",
    "mapping",
    "members",
    "migration",
    "register",
    "text",
]
