"""Replicated graphs: signed frames over the data types, kept in a store, synced with other replicas."""

from dtp.crdt import BlobRef
from dtp.crdt.document import NestedList, NestedMap, NestingError, NewText
from dtp.crdt.permission.grants import Grant
from dtp.crdt.permission.rules import Breach, Rule, RuleBroken, Rules, RulesError, Schema
from dtp.graph.blobs.blobs import Blobs
from dtp.graph.blobs.fetching import Blob
from dtp.graph.blobs.following import BlobFollowing
from dtp.graph.changes import Batch, Changes, Watch
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
    GraphInUse,
    GraphPartial,
    GraphReadOnly,
    HistoryUnclear,
    KeyLost,
    NotGraph,
    NotReader,
    NotSealed,
    OffenceError,
    ReaderUnknown,
    StoreError,
    SyncError,
)
from dtp.graph.formats.carrying import Files
from dtp.graph.formats.contents import Exported
from dtp.graph.formats.items import Imported
from dtp.graph.frames.envelope import Envelope, Summary
from dtp.graph.frames.proving import Proof
from dtp.graph.graph import Graph
from dtp.graph.past.looking import History
from dtp.graph.past.resigning import Resigned
from dtp.graph.permission.access import OffenceProof
from dtp.graph.permission.accounts import Accounts, KnownDevice, Revoked, revoke_device
from dtp.graph.permission.admission import Admission, Banned
from dtp.graph.permission.agreement import Agreement, Unagreed
from dtp.graph.permission.granting import Access
from dtp.graph.permission.private import PrivateNode
from dtp.graph.permission.quotas import Quotas, Refused
from dtp.graph.presence.presence import Presence, PresenceChanges, Present
from dtp.graph.query.budget import QueryBudget
from dtp.graph.query.errors import QueryError, QueryLimit
from dtp.graph.stores.kept import KeptFrames
from dtp.graph.sync.part import Part
from dtp.graph.undo.manager import UndoManager, Undone
from dtp.graph.upkeep.pruning import Prunable, Pruned
from dtp.graph.upkeep.upkeep import Upkeep

__all__ = [
    "Access",
    "Accounts",
    "Admission",
    "Agreement",
    "Banned",
    "Batch",
    "Blob",
    "BlobAbsent",
    "BlobError",
    "BlobFollowing",
    "BlobRef",
    "Blobs",
    "Breach",
    "Changes",
    "ChangesMissed",
    "ChunkError",
    "ContentsError",
    "Envelope",
    "EnvelopeError",
    "Equivocation",
    "Exported",
    "Files",
    "Grant",
    "Graph",
    "GraphBehind",
    "GraphError",
    "GraphForked",
    "GraphInUse",
    "GraphPartial",
    "GraphReadOnly",
    "History",
    "HistoryUnclear",
    "Imported",
    "KeptFrames",
    "KeyLost",
    "KnownDevice",
    "NestedList",
    "NestedMap",
    "NestingError",
    "NewText",
    "NotGraph",
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
    "Revoked",
    "Rule",
    "RuleBroken",
    "Rules",
    "RulesError",
    "Schema",
    "StoreError",
    "Summary",
    "SyncError",
    "Unagreed",
    "UndoManager",
    "Undone",
    "Upkeep",
    "Watch",
    "revoke_device",
]
