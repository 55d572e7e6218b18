"""Replicated graphs: signed frames over the data types, kept in a store, synced with other replicas."""

from dtp.crdt import BlobRef
from dtp.crdt.access import Grant
from dtp.crdt.document import NestedList, NestedMap, NestingError, NewText
from dtp.crdt.rules import Rule, RuleBroken, Rules, RulesError, Schema
from dtp.graph.access import OffenceProof
from dtp.graph.accounts import Accounts, KnownDevice
from dtp.graph.admission import Admission, Banned
from dtp.graph.changes import Batch, Changes, Watch
from dtp.graph.envelope import Envelope, Summary
from dtp.graph.errors import (
    BlobAbsent,
    BlobError,
    ChangesMissed,
    ChunkError,
    ContentsError,
    EnvelopeError,
    Equivocation,
    GraphBehind,
    GraphError,
    GraphForked,
    GraphPartial,
    GraphReadOnly,
    HistoryUnclear,
    KeyLost,
    NotReader,
    NotSealed,
    OffenceError,
    ReaderUnknown,
    StoreError,
    SyncError,
)
from dtp.graph.fetching import Blob
from dtp.graph.formats.items import Imported
from dtp.graph.graph import Graph
from dtp.graph.graph_formats import Exported
from dtp.graph.part import Part
from dtp.graph.presence.presence import Presence, PresenceChanges, Present
from dtp.graph.private import PrivateNode
from dtp.graph.proving import Proof
from dtp.graph.pruning import Prunable, Pruned
from dtp.graph.query.budget import QueryBudget
from dtp.graph.query.errors import QueryError, QueryLimit
from dtp.graph.quotas import Quotas, Refused
from dtp.graph.resigning import Resigned
from dtp.graph.undo import UndoManager, Undone

__all__ = [
    "Accounts",
    "Admission",
    "Banned",
    "Batch",
    "Blob",
    "BlobAbsent",
    "BlobError",
    "BlobRef",
    "Changes",
    "ChangesMissed",
    "ChunkError",
    "ContentsError",
    "Envelope",
    "EnvelopeError",
    "Equivocation",
    "Exported",
    "Grant",
    "Graph",
    "GraphBehind",
    "GraphError",
    "GraphForked",
    "GraphPartial",
    "GraphReadOnly",
    "HistoryUnclear",
    "Imported",
    "KeyLost",
    "KnownDevice",
    "NestedList",
    "NestedMap",
    "NestingError",
    "NewText",
    "NotReader",
    "NotSealed",
    "OffenceError",
    "OffenceProof",
    "Part",
    "Presence",
    "PresenceChanges",
    "Present",
    "PrivateNode",
    "Proof",
    "Prunable",
    "Pruned",
    "QueryBudget",
    "QueryError",
    "QueryLimit",
    "Quotas",
    "ReaderUnknown",
    "Refused",
    "Resigned",
    "Rule",
    "RuleBroken",
    "Rules",
    "RulesError",
    "Schema",
    "StoreError",
    "Summary",
    "SyncError",
    "UndoManager",
    "Undone",
    "Watch",
]
