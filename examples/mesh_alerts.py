"""Local coordination with the uplink pulled: an alert reaches all in under a second.

Three houses with four devices each (a lamp, a car, a charging post, a display) and a gateway to the internet. The
gateway is killed, and a device raises an alert all the same. python examples/mesh_alerts.py
"""

import asyncio
import os
import sys
import time
from contextlib import AsyncExitStack

import dtp

DEVICES = 4


async def house(others: list[str]) -> None:
    async with AsyncExitStack() as stack:
        for number in range(DEVICES):
            node = await stack.enter_async_context(
                dtp.Node(listen=["tcp://127.0.0.1:0"], discover=(), bootstrap=others)
            )
            others = [*others, str(node.listener.address())]
            topic = await stack.enter_async_context(node.topic("alerts"))
            stack.push_async_callback(wait_cancelled, asyncio.create_task(device(topic, number)))
        print(*others, flush=True)
        parent = os.getppid()
        while os.getppid() == parent:  # until the program that began it ends
            await asyncio.sleep(0.2)


async def wait_cancelled(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def device(topic, number: int) -> None:  # type: ignore[no-untyped-def]
    async for message in topic:
        print(f"{os.getpid()}/{number} {time.time() - message.time:.6f}", flush=True)


async def start(others: list[str]) -> tuple[asyncio.subprocess.Process, list[str]]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-P", __file__, "house", *others, stdout=asyncio.subprocess.PIPE
    )
    return process, (await process.stdout.readline()).decode().split()


async def main() -> None:
    houses: list[asyncio.subprocess.Process] = []
    addresses: list[str] = []
    for _ in range(3):
        process, addresses = await start(addresses)
        houses.append(process)
    gateway, _ = await start(addresses)
    gateway.kill()
    await gateway.wait()
    print("the uplink is pulled")
    async with (
        dtp.Node(listen=None, discover=(), bootstrap=addresses) as sensor,
        sensor.topic("alerts") as topic,
    ):
        while len(topic.members) < 3:
            await asyncio.sleep(0.05)
        await topic.publish(b"smoke in house 2")
        seconds = []
        async with asyncio.timeout(240):
            for process in houses:
                for _ in range(DEVICES):
                    seconds.append(float((await process.stdout.readline()).split()[1]))
        slowest = max(seconds)
        print(
            f"{len(seconds)} devices have the alert, all",
            "in under a second" if slowest < 1 else f"in {slowest:.1f} s",
        )
    for process in houses:
        process.terminate()
    await asyncio.gather(*(process.wait() for process in houses))


if __name__ == "__main__":
    asyncio.run(house(sys.argv[2:]) if sys.argv[1:] else main())
