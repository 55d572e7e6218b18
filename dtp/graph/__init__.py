"""Replicated graphs: signed frames over the data types, kept in a store, synced with other replicas."""

from dtp.graph.envelope import Envelope, Proof, Summary
from dtp.graph.errors import ChunkError, EnvelopeError, Equivocation, GraphError, StoreError, SyncError
from dtp.graph.graph import Graph
from dtp.graph.watch import Watch

__all__ = [
    "ChunkError",
    "Envelope",
    "EnvelopeError",
    "Equivocation",
    "Graph",
    "GraphError",
    "Proof",
    "StoreError",
    "Summary",
    "SyncError",
    "Watch",
]
