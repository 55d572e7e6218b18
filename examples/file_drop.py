"""A drop box: whoever is on the list may leave files, which are checked, and go on where a cut broke them off.

python examples/file_drop.py FOLDER dtp1...    # prints its address; `dtp send FILE ADDRESS` fills it
python examples/file_drop.py                   # a box and a sender in one process
"""

import asyncio
import sys
import tempfile
from pathlib import Path

import dtp
from dtp.files import receive_file, send_file


async def drop_box(folder: Path, allowed: set[dtp.PeerId], me: dtp.Identity) -> dtp.Listener:
    """Listen for files. Each sender gets a folder of its own."""

    def admit(request: dtp.Request) -> None:
        if request.peer not in allowed:
            raise dtp.Refuse(reason="you are not on the list")

    async def take(connection: dtp.Connection) -> None:
        mine = folder / str(connection.peer)
        mine.mkdir(exist_ok=True)
        while True:
            stream = await connection.accept_stream()
            try:
                received = await receive_file(stream, mine)
            except dtp.DtpError as error:  # the sender was told
                print(f"{connection.peer.short}: {error}", flush=True)
                continue
            print(f"{connection.peer.short}: {received.path.name}, {received.file.size} bytes", flush=True)

    return await dtp.listen("tcp://127.0.0.1:0", {"drop": take}, identity=me, admit=admit)


async def main(arguments: list[str]) -> None:
    me = dtp.Identity.generate()
    if arguments:
        allowed = set(map(dtp.PeerId.parse, arguments[1:]))
        async with await drop_box(Path(arguments[0]), allowed, me) as listener:
            print(listener.address("drop"), flush=True)
            await asyncio.Event().wait()
    friend, stranger = dtp.Identity.generate(), dtp.Identity.generate()
    with tempfile.TemporaryDirectory() as folder:
        async with await drop_box(Path(folder), {friend.id}, me) as listener:
            async with dtp.connect(listener.address("drop"), identity=friend) as connection:
                await send_file(connection, __file__)
            try:
                await dtp.connect(listener.address("drop"), identity=stranger)
            except dtp.ConnectionRefused as refused:
                print(refused.reason)


if __name__ == "__main__":
    try:
        asyncio.run(main(sys.argv[1:]))
    except KeyboardInterrupt:
        pass
    except dtp.DtpError as error:
        sys.exit(f"{error.code}: {error}")
