"""Media of a call through `aiortc`: SRTP, keyed by DTLS between the certificates that the descriptions name.

No server is asked for addresses unless `stun` names one, and packets are sent to the other end only.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from dtp.messaging.calls.calling import Media
from dtp.messaging.calls.recording import MediaRecorder
from dtp.messaging.calls.signals import CallMalformed, check_description, drop_near_addresses
from dtp.messaging.calls.tunnel import PacketTunnel
from dtp.messaging.errors import MediaUnusable
from dtp.tasks import TaskSet

if TYPE_CHECKING:
    from aiortc import MediaStreamTrack, RTCPeerConnection
    from aiortc.contrib.media import MediaPlayer

_KINDS: Final = ("audio", "video")


class MediaEnd(Media):
    """This end of a call: what it sends, and where it writes what it receives.

    `file` is an audio or video file to send, `camera` and `microphone` are devices of the system (`/dev/video0`,
    and `default` of ALSA); with none of them this end only receives. `record` is a file for what is received
    (Matroska unless its name says otherwise), or "-" for standard output; without it, what is received is dropped.
    `on_media` is called with "audio" and "video" at the first frame of each. `stun` are URLs of servers that tell
    this machine's public address. With `hide_address` the other end isn't told this machine's addresses, so media
    flows through a relay or not at all.
    """

    def __init__(
        self,
        *,
        file: str | os.PathLike[str] | None = None,
        camera: str | None = None,
        microphone: str | None = None,
        record: str | os.PathLike[str] | None = None,
        on_media: Callable[[str], None] | None = None,
        stun: Sequence[str] = (),
        hide_address: bool = False,
    ) -> None:
        self._sources = (file, camera, microphone)
        self._stun = list(stun)
        self._hidden = hide_address
        self._tunnel: PacketTunnel | None = None
        self._on_media = on_media
        self._recorder = MediaRecorder(record) if record is not None else None
        #: Why recording has failed; "" if it hasn't.
        self.recording_fault = ""
        #: Set once the file that is sent has ended.
        self.source_ended = asyncio.Event()
        self._up: asyncio.Future[bool] | None = None
        self._down = asyncio.Event()
        self._tasks = TaskSet()
        self._sent: list[MediaStreamTrack] = []
        self._connection: RTCPeerConnection | None = None

    def use_tunnel(self, tunnel: PacketTunnel) -> None:
        """Offer this tunnel as a further way to the other end. Call it before any other method."""
        self._tunnel = tunnel

    async def offer(self) -> str:
        """Return this end's description. Raise `MediaUnusable`."""
        connection = self._open_connection()
        self._add_tracks(connection)
        sending = {track.kind for track in self._sent}
        for kind in _KINDS:
            if kind not in sending:
                connection.addTransceiver(kind, direction="recvonly")
        await connection.setLocalDescription(await connection.createOffer())
        return self._local_description(connection)

    async def answer(self, offer: str) -> str:
        """Return this end's description in answer to an offer, and connect. Raise `MediaUnusable` or
        `CallMalformed`.
        """
        connection = self._open_connection()
        await self._set_remote(connection, offer, "offer")
        self._add_tracks(connection)
        with _reading_description():
            await connection.setLocalDescription(await connection.createAnswer())
        return self._local_description(connection)

    def _local_description(self, connection: RTCPeerConnection) -> str:
        told = str(connection.localDescription.sdp)
        if not self._hidden:
            return told
        lines = told.splitlines(keepends=True)
        return "".join(each for each in lines if not each.startswith("a=candidate:"))

    async def accept(self, answer: str) -> None:
        """Connect with the description of the device that has answered. Raise `CallMalformed`."""
        assert self._connection is not None
        await self._set_remote(self._connection, answer, "answer")

    async def _set_remote(self, connection: RTCPeerConnection, description: str, kind: str) -> None:
        from aioice.ice import get_host_addresses
        from aiortc import RTCSessionDescription

        check_description(description)
        description = drop_near_addresses(description, get_host_addresses(True, True))
        if self._tunnel is not None:
            description = self._tunnel.add_candidate(description)
        with _reading_description():
            await connection.setRemoteDescription(RTCSessionDescription(description, kind))

    def _open_connection(self) -> RTCPeerConnection:
        try:
            from aiortc import RTCConfiguration, RTCIceServer, RTCPeerConnection
        except ImportError:
            raise MediaUnusable("calls need aiortc: pip install 'dtp-sockets[calls]'") from None
        servers = [RTCIceServer(urls=self._stun)] if self._stun else []
        connection = self._connection = RTCPeerConnection(RTCConfiguration(iceServers=servers))
        self._up = asyncio.get_running_loop().create_future()
        connection.on("connectionstatechange", partial(self._state_changed, connection))
        connection.on("track", self._track_came)
        if self._recorder is not None:
            self._recorder.open()
        return connection

    # ---- sending -----------------------------------------------------------------------------------------------

    def _add_tracks(self, connection: RTCPeerConnection) -> None:
        file, camera, microphone = self._sources
        players = []
        if file is not None:
            players.append(_open_player(os.fspath(file)))
        if camera is not None:
            players.append(_open_player(camera, format="v4l2"))
        if microphone is not None:
            players.append(_open_player(microphone, format="alsa"))
        found = [track for player in players for track in (player.audio, player.video) if track is not None]
        for track in found:
            self._sent.append(track)
            connection.addTrack(track)
            track.on("ended", self._sent_ended)
        if players and not found:
            raise MediaUnusable("there is neither audio nor video in what is to be sent")

    def _sent_ended(self) -> None:
        """Note the end of a file. aiortc also ends tracks with their connection, which is told apart here."""
        if self._is_connected() and all(track.readyState == "ended" for track in self._sent):
            self.source_ended.set()

    def _is_connected(self) -> bool:
        if self._connection is None:
            return False
        ways = [each.transport for each in self._connection.getSenders()]
        return all(
            each.state == "connected" and each.transport.state in ("connected", "completed") for each in ways
        )

    # ---- receiving ---------------------------------------------------------------------------------------------

    def _track_came(self, track: MediaStreamTrack) -> None:
        if self._recorder is not None:
            self._recorder.expect_kind(track.kind)
        self._tasks.start(self._take_frames(track), name=f"dtp-calls-{track.kind}")

    async def _take_frames(self, track: MediaStreamTrack) -> None:
        from aiortc.mediastreams import MediaStreamError

        came = False
        while True:
            try:
                frame: Any = await track.recv()
            except MediaStreamError:
                break
            if not came and self._on_media is not None:
                self._on_media(track.kind)
            came = True
            if self._recorder is not None:
                self._recorder.add(track.kind, frame)
        if self._recorder is not None:
            self._recorder.expect_no_more(track.kind)

    def _state_changed(self, connection: RTCPeerConnection) -> None:
        assert self._up is not None
        state = connection.connectionState
        if state == "connected" and not self._up.done():
            self._up.set_result(True)
        elif state in ("failed", "closed"):
            if not self._up.done():
                self._up.set_result(False)
            self._down.set()

    async def wait_up(self) -> bool:
        """Wait until media flows both ways, and return True; return False if it can't."""
        assert self._up is not None
        return await asyncio.shield(self._up)

    async def wait_down(self) -> None:
        """Wait until media has ended."""
        await self._down.wait()

    async def close(self) -> None:
        """End the media, and finish the recording. Idempotent."""
        connection, self._connection = self._connection, None
        if connection is None:
            return
        for track in self._sent:
            track.stop()
        await connection.close()
        await self._tasks.stop()
        if self._recorder is not None:
            self.recording_fault = await self._recorder.close()
        if self._up is not None and not self._up.done():
            self._up.set_result(False)
        self._down.set()


@contextlib.contextmanager
def _reading_description() -> Iterator[None]:
    """Raise `CallMalformed` for everything that aiortc raises if it can't read a description, or supports none of
    its codecs. aiortc has no single error for this, and a `StopIteration` leaves its coroutines as a
    `RuntimeError`.
    """
    from aiortc.exceptions import InternalError, InvalidAccessError, InvalidStateError, OperationError

    try:
        yield
    except (
        *(ValueError, LookupError, AttributeError, TypeError, AssertionError, RuntimeError),
        *(InternalError, InvalidAccessError, InvalidStateError, OperationError),
    ) as fault:
        raise CallMalformed(f"the description of the other end's media can't be used: {fault}") from None


def _open_player(name: str, **options: Any) -> MediaPlayer:
    from aiortc.contrib.media import MediaPlayer
    from av import FFmpegError

    try:
        return MediaPlayer(name, **options)
    except FFmpegError as fault:
        raise MediaUnusable(f"{name}: {fault.strerror}; without a camera, --file sends a file") from None
