"""A chat room: several clients, each known by its identity; who reads too slowly is put out, the others feel nothing.

python examples/chat.py serve                  # prints its address
python examples/chat.py ADDRESS                # lines from standard input go to everyone
python examples/chat.py                        # a room and three clients in one process
"""

import asyncio
import contextlib
import sys

import dtp

#: Lines that may wait for one member before it is put out.
BACKLOG = 100


class Room:
    """Everyone who is connected. `join` is the service's handler."""

    def __init__(self) -> None:
        self._members: dict[dtp.PeerId, asyncio.Queue[bytes]] = {}

    async def join(self, connection: dtp.Connection) -> None:
        """Serve one member: what it says goes to all, with the name that it has proven."""
        lines = await connection.accept_stream()
        queue = self._members[connection.peer] = asyncio.Queue(BACKLOG)
        self.say(f"* {connection.peer.short} is here".encode())
        telling = asyncio.create_task(self._tell(queue, lines, connection))
        try:
            while line := await lines.readline():
                self.say(f"<{connection.peer.short}> ".encode() + line.rstrip())
        finally:
            telling.cancel()
            if self._members.get(connection.peer) is queue:
                del self._members[connection.peer]
            self.say(f"* {connection.peer.short} has left".encode())

    def say(self, line: bytes) -> None:
        """Queue a line for everyone."""
        for member, queue in list(self._members.items()):
            try:
                queue.put_nowait(line)
            except asyncio.QueueFull:
                del self._members[member]

    async def _tell(self, queue: asyncio.Queue[bytes], lines: dtp.Stream, connection: dtp.Connection) -> None:
        with contextlib.suppress(ConnectionError):
            while self._members.get(connection.peer) is queue:
                lines.write(await queue.get() + b"\n")
                await lines.drain()
            await connection.close(1, "too slow")


async def serve() -> None:
    me = dtp.Identity.generate()
    async with await dtp.listen("tcp://127.0.0.1:0", Room().join, identity=me) as listener:
        print(listener.address(), flush=True)
        await asyncio.Event().wait()


async def talk(address: str) -> None:
    """Lines from standard input to the room, and what is said there to standard output."""
    async with dtp.connect(address) as connection:
        room = await connection.open_stream()
        room.write(b"")
        loop = asyncio.get_running_loop()

        async def listen() -> None:
            while line := await room.readline():
                print(line.decode(errors="backslashreplace").rstrip(), flush=True)

        listening = asyncio.create_task(listen())
        while line := await loop.run_in_executor(None, sys.stdin.buffer.readline):
            room.write(line)
            await room.drain()
        room.write_eof()
        await listening


async def demo() -> None:
    """Three clients hear what each of them says."""
    names = [dtp.Identity.generate() for _ in range(3)]
    async with (
        await dtp.listen("tcp://127.0.0.1:0", Room().join, identity=dtp.Identity.generate()) as listener,
        contextlib.AsyncExitStack() as stack,
    ):
        rooms = []
        for name in names:
            connection = await stack.enter_async_context(dtp.connect(listener.address(), identity=name))
            rooms.append(await connection.open_stream())
            await heard(rooms[-1], f"* {name.id.short} is here")
        for number, (name, room) in enumerate(zip(names, rooms, strict=True)):
            room.write(f"I am number {number}\n".encode())
            for other in rooms:
                line = await heard(other, f"<{name.id.short}> I am number {number}")
            print(line)


async def heard(room: dtp.Stream, wanted: str) -> str:
    """Read until this line."""
    while line := (await room.readline()).decode().rstrip():
        if line == wanted:
            return line
    raise EOFError(f"never heard {wanted!r}")


if __name__ == "__main__":
    arguments = sys.argv[1:]
    program = demo() if not arguments else serve() if arguments == ["serve"] else talk(arguments[0])
    try:
        asyncio.run(program)
    except KeyboardInterrupt:
        pass
    except dtp.DtpError as error:
        sys.exit(f"{error.code}: {error}")
