"""Files over streams: one file per stream, resumable across runs, checked by SHA-256.

Whoever has the file is the *sender*, the other side the *receiver*; either may open the stream. Everything but the
file's bytes is a *message*: `u16 length` (big-endian, at most 4096) and that many bytes of msgpack, a map with text
keys. Keys that a reader doesn't know are ignored.

    opener                                          other side
    {"op": "put", "version": 1, FILE}      ->                           the opener has a file to give
    {"op": "get", "version": 1, "name"}    ->
                                           <-  {"op": "file", FILE}     ... or wants one

    receiver                                        sender
    {"op": "accept", "have"}               ->                           the first `have` bytes may be here already
                                           <-  {"op": "same", "digest"} of the first `have` bytes
    {"op": "start", "from"}                ->                           `have` if their digests are equal, else 0
                                           <-  the bytes of the file, exactly `size - from`
                                           <-  {"op": "end", "digest"}  of the whole file
    {"op": "done"}                         ->                           equal, and stored under its name

- FILE is `name` (text), `size` (bytes), `mtime` (ns since 1970) and `hash`, which is "sha256".
- `name` in `put` and `file` is a plain file name (`names.check_name`); in `get` it is a path below what the service
  serves, "" for what the service's own name says.
- `digest` is 32 bytes. Without anything here (`have` is 0) there is neither `same` nor `start`, and the bytes come
  behind `accept`.
- A receiver that has a whole file of that name and size says `have == size`; if the two differ, it refuses
  ("exists") in place of `start`.
- The receiver tells no digest of what is here: whoever guesses the name and size of a file could find out from it
  what is in the file. A sender learns whether the two are equal, once for each transfer.
- Instead of any message that is due, a side may say {"op": "refuse", "code", "message"}: the codes are
  `messages.REFUSALS`. The receiver may do so while bytes come, and then stops the stream (STOP). A sender whose
  file fails or changes while bytes go resets the stream: 1 for an error of reading, 2 for a file that changed.
- After the last message both sides finish the stream.
- Who only asks about a file finishes the stream behind `get`, and gets `file` or `refuse`. A paid service answers
  that unpaid, to connections without a ticket that name the service `dtp.ask/NAME` in place of NAME.

What was received of a file that did not come whole stays as `NAME.dtp-part`, and the next transfer of the same file
goes on behind it. `dtp.files.transfer` has the functions to call.
"""

from __future__ import annotations

from dtp.files.errors import (
    FileExists,
    FileProblem,
    FileTransferError,
    NameRefused,
    NoSpace,
    NotTheSame,
    TransferRefused,
)
from dtp.files.messages import FileInfo
from dtp.files.names import check_name
from dtp.files.store import Here, look_here
from dtp.files.transfer import (
    Progress,
    Received,
    Sent,
    ask_file,
    fetch_file,
    receive_file,
    send_file,
    serve_file,
    tell_file,
)

__all__ = [
    "FileExists",
    "FileInfo",
    "FileProblem",
    "FileTransferError",
    "Here",
    "NameRefused",
    "NoSpace",
    "NotTheSame",
    "Progress",
    "Received",
    "Sent",
    "TransferRefused",
    "ask_file",
    "check_name",
    "fetch_file",
    "look_here",
    "receive_file",
    "send_file",
    "serve_file",
    "tell_file",
]
