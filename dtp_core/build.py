"""Builds `dtp.core._dtp_core` with cffi in API mode; dtp.h is the only declaration of what C offers.

Named in setup.py as a cffi module. A new `.c` file is one line in `SOURCES`; headers are beside this file.
"""

from __future__ import annotations

import sys
from pathlib import Path

import cffi

HERE = Path(__file__).parent
#: Paths as setuptools wants them: relative to setup.py.
SOURCES = [
    "dtp_core/wire/cipher.c",
    "dtp_core/wire/provider_sodium.c",
    "dtp_core/wire/provider_evp.c",
    "dtp_core/wire/frame.c",
    "dtp_core/wire/record.c",
    "dtp_core/wire/packet.c",
    "dtp_core/wire/sockets.c",
    "dtp_core/graph/memory.c",
    "dtp_core/graph/hash.c",
    "dtp_core/graph/value.c",
    "dtp_core/graph/names.c",
    "dtp_core/graph/parse.c",
    "dtp_core/graph/slots.c",
    "dtp_core/graph/entries.c",
    "dtp_core/graph/merge.c",
    "dtp_core/graph/access.c",
    "dtp_core/graph/local.c",
    "dtp_core/graph/sort.c",
    "dtp_core/graph/encode.c",
    "dtp_core/graph/properties.c",
    "dtp_core/graph/query.c",
    "dtp_core/graph/read.c",
    "dtp_core/graph/scan.c",
    "dtp_core/graph/state.c",
    "dtp_core/graph/summary.c",
    "dtp_core/graph/account.c",
    "dtp_core/graph/sketch.c",
    "dtp_core/text/memory.c",
    "dtp_core/text/utf8.c",
    "dtp_core/text/index.c",
    "dtp_core/text/log.c",
    "dtp_core/text/tree.c",
    "dtp_core/text/depth.c",
    "dtp_core/text/order.c",
    "dtp_core/text/edit.c",
    "dtp_core/text/undo.c",
    "dtp_core/text/read.c",
    "dtp_core/text/wire.c",
    "dtp_core/text/wait.c",
    "dtp_core/text/merge.c",
    "dtp_core/text/encode.c",
    "dtp_core/text/compact.c",
    "dtp_core/text/check.c",
    "dtp_core/rich/cells.c",
    "dtp_core/rich/index.c",
    "dtp_core/rich/rich.c",
    "dtp_core/rich/carry.c",
    "dtp_core/rich/undo.c",
    "dtp_core/rich/read.c",
    "dtp_core/list/cells.c",
    "dtp_core/list/marks.c",
    "dtp_core/list/list.c",
    "dtp_core/list/facts.c",
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
        "dtp_core/crdt_text_types.h",
    ],
    extra_compile_args=COMPILE_ARGS,
)
