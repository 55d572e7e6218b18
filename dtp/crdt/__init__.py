"""Data types that merge: replicas that saw the same ops hold the same, in whatever order they came. No IO."""

from dtp.crdt.clock import DRIFT, Clock
from dtp.crdt.list import List, ListPatch
from dtp.crdt.ops import Kind, Op
from dtp.crdt.replica import Change, Frame, Replica
from dtp.crdt.sequence_changes import SequenceChange
from dtp.crdt.sequences import GraphList, GraphText
from dtp.crdt.temporal import Date, DateTime, Duration, LocalDateTime, LocalTime, Time
from dtp.crdt.types import TYPES, Counter, Map, MultiValue, Node, Set
from dtp.crdt.values import BlobRef, GraphValueError, Link, Value

__all__ = [
    "DRIFT",
    "TYPES",
    "BlobRef",
    "Change",
    "Clock",
    "Counter",
    "Date",
    "DateTime",
    "Duration",
    "Frame",
    "GraphList",
    "GraphText",
    "GraphValueError",
    "Kind",
    "Link",
    "List",
    "ListPatch",
    "LocalDateTime",
    "LocalTime",
    "Map",
    "MultiValue",
    "Node",
    "Op",
    "Replica",
    "SequenceChange",
    "Set",
    "Time",
    "Value",
]
