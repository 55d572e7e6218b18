"""A bridge for devices that only speak MQTT: it signs what they send, and shows them what others publish.

It isn't an engine: devices read and write payloads, so the broker sees them, and the bridge is the author of what
comes from there (`pip install 'dtp-sockets[mqtt]'`).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any, Final, Literal

from dtp.errors import LocalError
from dtp.gossip.errors import EngineError, NoTopicPeers
from dtp.tasks import SupervisedTask, start_task

if TYPE_CHECKING:
    import aiomqtt

    from dtp.gossip.topics import Topic


#: The direction of messages: from devices into the topic, from the topic to devices, or both.
Direction = Literal["in", "out", "both"]
#: Seconds until the bridge connects again.
_FIRST_PAUSE: Final = 0.5
_PATIENCE: Final = 5.0


class MqttBridge:
    """Connects a topic with a topic of MQTT, within `async with`.

        async with gossip.topic("weather") as topic, MqttBridge(topic, "127.0.0.1", "home/weather"):
            await stop.wait()

    The bridge reads the topic, so don't read it elsewhere, or choose the direction `"in"`. While the broker is away,
    messages wait in the topic's own queue. MQTT 5's `noLocal` keeps the bridge's messages from coming back.
    """

    def __init__(
        self,
        topic: Topic,
        host: str,
        mqtt_topic: str,
        *,
        port: int = 1883,
        direction: Direction = "both",
        qos: int = 1,
        **options: Any,
    ) -> None:
        """`options` are passed to `aiomqtt.Client` (user name, TLS). Raise `LocalError` for an MQTT topic with
        wildcards.
        """
        try:
            import aiomqtt
        except ImportError as error:
            raise LocalError("MQTT needs aiomqtt: pip install 'dtp-sockets[mqtt]'") from error
        if not mqtt_topic or any(char in mqtt_topic for char in "#+\0"):
            raise LocalError("a bridge needs a single MQTT topic: without wildcards")
        self._mqtt = aiomqtt
        self._topic = topic
        self._where = host, port
        self._mqtt_topic = mqtt_topic
        self._direction: Direction = direction
        self._qos = qos
        self._options = options
        self._task = SupervisedTask(
            self._run_connection,
            name="dtp-mqtt-bridge",
            first_pause=_FIRST_PAUSE,
            foreseen=(aiomqtt.MqttError,),
        )
        self._connected = asyncio.Event()
        self._taken: Any = None
        #: Counts of messages: `in`, `out`, and `in-unheard` (nobody had the topic).
        self.counts: Counter[str] = Counter()

    async def __aenter__(self) -> MqttBridge:
        """Connect. Raise `EngineError` if the broker can't be reached within 5 s."""
        self._task.start()
        try:
            async with asyncio.timeout(_PATIENCE):
                await self._connected.wait()
        except TimeoutError:
            await self._task.stop()
            where = ":".join(map(str, self._where))
            raise EngineError(f"no MQTT broker at {where}: {self._task.error}") from None
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._task.stop()

    @contextlib.asynccontextmanager
    async def _connect(self) -> AsyncIterator[aiomqtt.Client]:
        host, port = self._where
        options = {"protocol": self._mqtt.ProtocolVersion.V5} | self._options
        client = self._mqtt.Client(host, port, **options)
        await client.__aenter__()
        try:
            yield client
        finally:
            await client.__aexit__(None, None, None)
            # Retrieve the reason why it ended, or asyncio reports the client's future.
            with contextlib.suppress(self._mqtt.MqttError):
                async for _ in client.messages:
                    pass

    async def _run_connection(self) -> None:
        """Run one connection until it breaks. The supervisor then starts another."""
        async with self._connect() as client:
            tasks = []
            try:
                if self._direction in ("in", "both"):
                    await client.subscribe(self._mqtt_topic, options=_subscribe_options(self._qos))
                # Even if nothing is subscribed, this notices that the broker has gone.
                tasks.append(start_task(self._forward_in(client), name="dtp-mqtt-in"))
                if self._direction in ("out", "both"):
                    tasks.append(start_task(self._forward_out(client), name="dtp-mqtt-out"))
                self._connected.set()
                done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
                for each in done:
                    each.result()
            finally:
                for each in tasks:
                    each.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)

    async def _forward_in(self, client: aiomqtt.Client) -> None:
        async for message in client.messages:
            payload = message.payload
            data = payload if isinstance(payload, bytes | bytearray) else str(payload or "").encode()
            try:
                await self._topic.publish(data)
            except NoTopicPeers:
                self.counts["in-unheard"] += 1
                continue
            self.counts["in"] += 1

    async def _forward_out(self, client: aiomqtt.Client) -> None:
        """Publish the topic's messages. Each is kept until the broker has it, so a lost connection loses none."""
        while True:
            if self._taken is None:
                self._taken = await self._topic.read()
            await client.publish(self._mqtt_topic, self._taken.data, qos=self._qos)
            self._taken = None
            self.counts["out"] += 1


def _subscribe_options(qos: int) -> Any:
    from paho.mqtt.subscribeoptions import SubscribeOptions

    return SubscribeOptions(qos=qos, noLocal=True)
