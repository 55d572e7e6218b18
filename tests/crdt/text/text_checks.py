"""What several tests of the text share."""

from __future__ import annotations

from collections.abc import Iterable

from dtp.crdt.text import Patch, Text


def patched(model: str, patches: Iterable[Patch]) -> str:
    """A string after the changes that a text tells of."""
    for position, deleted, inserted in patches:
        assert position + deleted <= len(model)
        model = model[:position] + inserted + model[position + deleted :]
    return model


def exchange(texts: Iterable[Text]) -> None:
    """Bring everybody to the same version."""
    replicas = list(texts)
    for _ in range(2):
        for one in replicas:
            for other in replicas:
                one.merge(other.changes_since(one.version))
