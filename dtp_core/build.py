"""Builds `dtp.core._dtp_core` with cffi in API mode; dtp.h is the only declaration of what C offers.

Named in setup.py as a cffi module. A new `.c` file is one line in `SOURCES`.
"""

from __future__ import annotations

import sys
from pathlib import Path

import cffi

HERE = Path(__file__).parent
#: Paths as setuptools wants them: relative to setup.py.
SOURCES = [
    "dtp_core/cipher.c",
    "dtp_core/provider_sodium.c",
    "dtp_core/provider_evp.c",
    "dtp_core/frame.c",
    "dtp_core/record.c",
    "dtp_core/packet.c",
    "dtp_core/sockets.c",
    "dtp_core/crdt_memory.c",
    "dtp_core/crdt_hash.c",
    "dtp_core/crdt_value.c",
    "dtp_core/crdt_names.c",
    "dtp_core/crdt_parse.c",
    "dtp_core/crdt_slots.c",
    "dtp_core/crdt_entries.c",
    "dtp_core/crdt_merge.c",
    "dtp_core/crdt_access.c",
    "dtp_core/crdt_local.c",
    "dtp_core/crdt_sort.c",
    "dtp_core/crdt_encode.c",
    "dtp_core/crdt_properties.c",
    "dtp_core/crdt_query.c",
    "dtp_core/crdt_read.c",
    "dtp_core/crdt_scan.c",
    "dtp_core/crdt_state.c",
    "dtp_core/crdt_summary.c",
    "dtp_core/crdt_account.c",
    "dtp_core/crdt_sketch.c",
    "dtp_core/crdt_text_memory.c",
    "dtp_core/crdt_text_utf8.c",
    "dtp_core/crdt_text_index.c",
    "dtp_core/crdt_text_log.c",
    "dtp_core/crdt_text_tree.c",
    "dtp_core/crdt_text_depth.c",
    "dtp_core/crdt_text_order.c",
    "dtp_core/crdt_text_edit.c",
    "dtp_core/crdt_text_undo.c",
    "dtp_core/crdt_text_read.c",
    "dtp_core/crdt_text_wire.c",
    "dtp_core/crdt_text_wait.c",
    "dtp_core/crdt_text_merge.c",
    "dtp_core/crdt_text_encode.c",
    "dtp_core/crdt_text_compact.c",
    "dtp_core/crdt_text_check.c",
    "dtp_core/crdt_rich_cells.c",
    "dtp_core/crdt_rich_index.c",
    "dtp_core/crdt_rich.c",
    "dtp_core/crdt_rich_carry.c",
    "dtp_core/crdt_rich_undo.c",
    "dtp_core/crdt_rich_read.c",
    "dtp_core/crdt_list_cells.c",
    "dtp_core/crdt_list_marks.c",
    "dtp_core/crdt_list.c",
    "dtp_core/crdt_list_facts.c",
]
#: MSVC optimises for speed by /O2, which setuptools passes by itself.
COMPILE_ARGS = [] if sys.platform == "win32" else ["-std=c11", "-O3", "-fvisibility=hidden"]

ffi = cffi.FFI()
# cffi parses declarations, not the preprocessor: what is left of the header without '#' lines is exactly those.
for header in ("dtp.h", "sockets.h", "crdt_text.h"):
    ffi.cdef("".join(line for line in (HERE / header).open() if not line.startswith("#")))
# Python's side of dtp_use_for_long (dtp/core/long_records.py).
ffi.cdef(
    """
    extern "Python" int dtp_python_seal(const dtp_cipher *, const uint8_t *, uint8_t *, size_t);
    extern "Python" int dtp_python_open(const dtp_cipher *, const uint8_t *, uint8_t *, size_t);
    """
)
ffi.set_source(
    "dtp.core._dtp_core",
    '#include "dtp.h"\n#include "sockets.h"\n#include "crdt_text.h"',
    sources=SOURCES,
    include_dirs=["dtp_core"],
    depends=[
        "dtp_core/dtp.h",
        "dtp_core/sockets.h",
        "dtp_core/internal.h",
        "dtp_core/crdt.h",
        "dtp_core/crdt_graph.h",
        "dtp_core/crdt_text.h",
        "dtp_core/crdt_text_internal.h",
        "dtp_core/crdt_text_marks.h",
    ],
    extra_compile_args=COMPILE_ARGS,
)
