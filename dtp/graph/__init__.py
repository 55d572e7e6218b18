"""Replicated graphs: signed frames over the data types, kept in a store, synced with other replicas."""

from dtp.crdt.access import Grant
from dtp.crdt.rules import Rule, RuleBroken, Rules, RulesError, Schema
from dtp.graph.access import OffenceProof
from dtp.graph.envelope import Envelope, Proof, Summary
from dtp.graph.errors import (
    ChunkError,
    EnvelopeError,
    Equivocation,
    GraphError,
    OffenceError,
    StoreError,
    SyncError,
)
from dtp.graph.graph import Graph
from dtp.graph.watch import Watch

__all__ = [
    "ChunkError",
    "Envelope",
    "EnvelopeError",
    "Equivocation",
    "Grant",
    "Graph",
    "GraphError",
    "OffenceError",
    "OffenceProof",
    "Proof",
    "Rule",
    "RuleBroken",
    "Rules",
    "RulesError",
    "Schema",
    "StoreError",
    "Summary",
    "SyncError",
    "Watch",
]
