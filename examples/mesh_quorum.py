"""Servers that decide by majority, without a server for it: Raft by PySyncObj (pip install pysyncobj), over links.

What is decided is never taken back: of two that claim a name at once one gets it, a leader that dies takes nothing
along, and who is left alone decides nothing. PySyncObj's messages are Python objects, so only members of a private
network are listened to. python examples/mesh_quorum.py
"""

import asyncio
import contextlib
import logging
import os
import pickle
import secrets
import sys

import pysyncobj
from pysyncobj.batteries import ReplDict
from pysyncobj.node import Node as Member
from pysyncobj.transport import Transport

import dtp

SERVERS, MESSAGE = 3, 1024 * 1024
PATIENCE = 5.0  # seconds after which a server says that nothing is decided


class Links(Transport):
    """PySyncObj's messages, on streams of the links between nodes."""

    def __init__(self, node: dtp.Node, members: list[str]) -> None:
        super().__init__(None, None, [])
        self._members = {each: Member(each) for each in members}
        self._streams: dict[str, dtp.Stream] = {}
        self._opening: set[asyncio.Task[None]] = set()
        node.links.protocols["raft/1"] = self._read
        node.links.listen(lambda link: self._opening.add(asyncio.create_task(self._open(link))), self._lost)

    async def _open(self, link) -> None:  # type: ignore[no-untyped-def]
        peer = str(link.peer)
        while peer in self._members and not link.closed:
            with contextlib.suppress(dtp.DtpError):  # it is gone, or has just begun and speaks no Raft yet
                stream = self._streams[peer] = await link.open("raft/1")
                self._onNodeConnected(self._members[peer])
                await stream.read()  # nothing comes but the end
            await asyncio.sleep(0.1)

    def _lost(self, link) -> None:  # type: ignore[no-untyped-def]
        stream = self._streams.get(str(link.peer))
        if stream is not None and stream.connection is link.connection:  # a newer link has another one
            del self._streams[str(link.peer)]
            self._onNodeDisconnected(self._members[str(link.peer)])

    async def _read(self, link, stream: dtp.Stream) -> None:  # type: ignore[no-untyped-def]
        while str(link.peer) in self._members:
            size = int.from_bytes(await stream.readexactly(4), "big")
            if size > MESSAGE:
                return
            message = pickle.loads(await stream.readexactly(size))
            self._onMessageReceived(self._members[str(link.peer)], message)

    def send(self, node: Member, message: object) -> bool:
        stream = self._streams.get(node.id)
        if stream is None or stream.write_error is not None or stream.queued > MESSAGE:
            return False  # Raft sends it again
        packed = pickle.dumps(message)
        stream.write(len(packed).to_bytes(4, "big") + packed)
        return True


async def claim(raft: pysyncobj.SyncObj, owners: ReplDict, name: str, who: str) -> str:
    """Return whose a name is, after a majority has decided; "no quorum" when none does."""
    decided = asyncio.get_running_loop().create_future()

    def told(owner: str | None, error: object) -> None:
        if not decided.done():
            decided.set_result("no quorum" if error else owner)

    owners.setdefault(name, who, callback=told)
    try:
        return await asyncio.wait_for(decided, PATIENCE)
    except TimeoutError:
        return "no quorum"


async def server(key: str, others: list[str]) -> None:
    logging.getLogger("dtp.node").setLevel(logging.ERROR)  # that others can't be reached is no news here
    me = dtp.Identity.generate()
    asked: asyncio.Queue[dtp.Stream] = asyncio.Queue()

    async def ask(connection: dtp.Connection) -> None:
        async for stream in connection:
            asked.put_nowait(stream)

    async def answer(raft: pysyncobj.SyncObj, owners: ReplDict) -> None:
        while True:
            stream = await asked.get()
            verb, *words = (await stream.readline()).decode().split()
            if verb == "leader":
                leader = raft.getStatus()["leader"]
                said = "nobody" if leader is None else leader.id
            else:
                said = await claim(raft, owners, *words)
            stream.write(said.encode())
            stream.close()

    async with dtp.Node(
        identity=me,
        listen=["tcp://127.0.0.1:0"],
        discover=(),
        bootstrap=others,
        private=key,
        services={"registry": ask},
    ) as node:
        print(node.listener.address(), flush=True)
        members = (await asyncio.to_thread(sys.stdin.readline)).split()
        owners = ReplDict()
        config = pysyncobj.SyncObjConf(autoTick=False, commandsWaitLeader=False, leaderFallbackTimeout=2.0)
        raft = pysyncobj.SyncObj(
            Member(str(me.id)),
            [Member(each) for each in members if each != str(me.id)],
            config,
            consumers=[owners],
            transport=Links(node, members),
        )
        answering = [asyncio.create_task(answer(raft, owners)) for _ in range(4)]
        parent = os.getppid()
        while os.getppid() == parent:  # until the program that began it ends
            raft.doTick()
            await asyncio.sleep(0.02)
        for task in answering:
            task.cancel()
        raft.destroy()


async def start(key: str, others: list[str]) -> tuple[asyncio.subprocess.Process, str]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", __file__, key, *others),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    return process, (await process.stdout.readline()).decode().strip()


async def main() -> None:
    key = secrets.token_hex(32)
    servers: dict[str, asyncio.subprocess.Process] = {}
    addresses: dict[str, str] = {}
    for _ in range(SERVERS):
        process, address = await start(key, list(addresses.values()))
        name = str(dtp.Address.parse(address).peer)
        servers[name], addresses[name] = process, address
    for process in servers.values():
        process.stdin.write(" ".join(servers).encode() + b"\n")

    async with dtp.Node(listen=None, discover=(), private=key) as client:

        async def ask(name: str, *words: str) -> str:
            async with client.connect(addresses[name], service="registry") as connection:
                stream = await connection.open_stream()
                stream.write(" ".join(words).encode() + b"\n")
                stream.write_eof()
                return (await stream.read()).decode()

        async def agree() -> str:
            """Return the leader that all that are alive agree on."""
            async with asyncio.timeout(240):
                while True:
                    said = {await ask(each, "leader") for each in servers}
                    if len(said) == 1 and said <= servers.keys():
                        return said.pop()
                    await asyncio.sleep(0.1)

        async def owner(name: str, who: str) -> str:
            """Return whose `web` is, as a server says; ask again while a new leader is being chosen."""
            async with asyncio.timeout(240):
                while (found := await ask(name, "claim", "web", who)) == "no quorum":
                    await asyncio.sleep(0.1)
                return found

        async def kill(name: str) -> None:
            process = servers.pop(name)
            process.kill()
            await process.wait()

        leader = await agree()
        print(f"{len(servers)} servers agree on a leader")
        first, second, _ = servers
        claims = await asyncio.gather(owner(first, "Ada"), owner(second, "Bo"))
        print("Ada and Bo claim web at once:", "one has it" if len(set(claims)) == 1 else claims)
        await kill(leader)
        print("the leader is killed")
        leader = await agree()
        kept = {await owner(each, "Cy") for each in servers}
        print(
            f"{len(servers)} servers agree on another;",
            "web is whose it was" if kept == set(claims) else kept,
        )
        await kill(leader)
        (alone,) = servers
        print("one server is left:", await ask(alone, "claim", "mail", "Cy"))
    for process in servers.values():
        process.terminate()
        await process.wait()


if __name__ == "__main__":
    asyncio.run(server(sys.argv[1], sys.argv[2:]) if sys.argv[1:] else main())
