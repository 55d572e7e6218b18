"""`dtp show`: put something on air, listen to it, play what was recorded."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dtp import config
from dtp.broadcast.by_topic import broker_of
from dtp.broadcast.cutting import CUTTERS, EVERY, cutter_of
from dtp.broadcast.errors import BroadcastError, ShowUnreachable
from dtp.broadcast.feeding import FAN_OUT
from dtp.broadcast.format import Announcement
from dtp.broadcast.hearing import HeardSegment, ShowStream, listen_to
from dtp.broadcast.kept_recordings import (
    RECORDINGS,
    RecordingServer,
    dial_found,
    fetch_recording,
    places_in_dht,
)
from dtp.broadcast.money.air import Air
from dtp.broadcast.parents import Patience
from dtp.broadcast.places import SERVICE, Place, addresses_of
from dtp.broadcast.producing import Broadcast, parse_show
from dtp.broadcast.recording import Recorder, Recording, RecordingError
from dtp.broadcast.sealed.opening import Opener
from dtp.broadcast.source import Source, send_while_on_air
from dtp.carriers.nearness import Nearness
from dtp.chain.node.networks import nearness_of_chain
from dtp.chain.show import ShowState
from dtp.cli.accounts import WalletOptions
from dtp.cli.durations import duration
from dtp.cli.groups import CommandGroup
from dtp.cli.options import IdentitySource, identity_options, verbose_option
from dtp.cli.output import (
    discard_output,
    json_option,
    print_line,
    print_note,
    print_result,
    wants_json,
    write_output,
)
from dtp.cli.paying import PaymentOptions
from dtp.cli.peers import network_option
from dtp.cli.run import run, serve_for_long
from dtp.cli.shows_gateway import page_beside, page_of, parse_place, watching
from dtp.cli.shows_input import source_of
from dtp.cli.shows_money import COMMANDS, chain_options, tell_air, tell_costs
from dtp.cli.shows_sealing import (
    SealingOptions,
    buyer_of,
    buying_options,
    claims_of,
    parse_peer,
    parse_peers,
    sealing_options,
    ticket_option,
)
from dtp.errors import DtpError
from dtp.escaping import escape_text
from dtp.identity import Identity, PeerId
from dtp.net.address import Address
from dtp.node.finding import WAYS
from dtp.node.node import ANYWHERE
from dtp.plurals import count_of
from dtp.tasks import SupervisedTask, start_task

if TYPE_CHECKING:
    from dtp.broadcast.money.watching import ShowWatcher
    from dtp.chain import ChainClient
    from dtp.gossip.engines.bridge import Engine


#: Seconds between two reads of the chain for where a show is heard.
_LOOK = 2.0
#: Hours by which clocks may differ before it is reported that something was sent long ago.
_OLD = 1.5
#: Seconds after which the reason why a show isn't heard is printed again.
_SAY_WHY = 5.0
_OWN_SHOW = "this is your own show: it is listened to with an identity made for it"


@click.group("show", cls=CommandGroup)
def show() -> None:
    """Shows: live to anyone, authentic, passed on by those who listen."""


def _place_options(command: Any) -> Any:
    for decorate in (
        network_option,
        click.option("--bootstrap", "-b", multiple=True, metavar="ADDRESS",
                     help="A node to begin with: dtp+tcp://dtp1...@HOST:PORT; may be repeated."),
        click.option("--listen", "-l", multiple=True, metavar="URL", default=(ANYWHERE,), show_default=True,
                     help="Where to serve the show: tcp://HOST:PORT; may be repeated."),
        click.option("--discover", "-d", multiple=True, type=click.Choice([*WAYS, "none"]), metavar="WAY",
                     help="How to find others and be found: lan, mdns, dht, none; may be repeated. [default: lan]"),
        click.option("--fan-out", type=click.IntRange(0), default=FAN_OUT, show_default=True,
                     help="Listeners that hear the show directly from here; others are sent on to those."),
    ):  # fmt: skip
        command = decorate(command)
    return command


_topic_option = click.option(
    "--topic",
    metavar="NAME",
    help="A feed of small segments, such as lines: by this topic, from node to node.",
)


_relay_option = click.option(
    "--relay",
    "relays",
    multiple=True,
    callback=parse_peers,
    metavar="dtp1...",
    help="Who always has a place here, such as a server of yours that passes the show on; may be repeated.",
)


def _over(ctx: click.Context, param: click.Parameter, text: str | None) -> Engine | None:
    """Return the broker of a URL, which keeps an hour of a feed; None where none was given."""
    if text is None:
        return None
    if not text.startswith("nats://"):
        raise click.BadParameter(f"{text!r} is not a broker: write nats://HOST:PORT[,HOST:PORT...]")
    return broker_of(text)


_over_option = click.option(
    "--over",
    callback=_over,
    metavar="URL",
    help="Carry the topic by JetStream of a NATS server, too: nats://HOST:PORT[,HOST:PORT...].",
)


def _place(
    discover: tuple[str, ...], listen: tuple[str, ...], bootstrap: tuple[str, ...], network: str | None
) -> Place:
    return Place(listen, [way for way in discover or ("lan",) if way != "none"], bootstrap, network)


for _command in COMMANDS:
    show.add_command(_command)


# ---- producing ---------------------------------------------------------------------------------------------


@show.command()
@click.argument("show_id", required=False, metavar="[SHOW]")
@click.option("--title", default="", help="What the show is called.")
@click.option("--media", default="", metavar="TYPE", help="The media type, such as video/mp4.")
@click.option(
    "--service", default=SERVICE, show_default=True, metavar="NAME", help="The name of the service."
)
@click.option("--cut", type=click.Choice(list(CUTTERS)), default="auto", show_default=True,
              help="Where segments end: at fragments of MP4, clusters of Matroska, lines, or by time.")  # fmt: skip
@click.option("--every", type=duration(0.05, 60), default=f"{EVERY:g}s", show_default=True,
              help="How long segments last that are cut by time.")  # fmt: skip
@click.option("--command", "program", metavar="COMMAND",
              help="Run this when the show goes on air, send what it writes, and end it when the show goes off air. "
              "No shell is between. [default: standard input is sent]")  # fmt: skip
@click.option("--record", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE",
              help="Keep the show in FILE.")  # fmt: skip
@click.option("--gateway", callback=parse_place, metavar="HOST:PORT",
              help="Serve a page there that plays the show; of a SHOW with its money, and the audience line to "
              "moderate.")  # fmt: skip
@_topic_option
@_over_option
@sealing_options
@_relay_option
@_place_options
@identity_options("--identity", "-i")
@chain_options
@verbose_option
@json_option
def broadcast(
    show_id: str | None,
    title: str,
    media: str,
    service: str,
    cut: str,
    every: float,
    program: str | None,
    record: Path | None,
    gateway: tuple[str, int] | None,
    topic: str | None,
    over: Engine | None,
    sealing: SealingOptions,
    relays: tuple[PeerId, ...],
    fan_out: int,
    identity: IdentitySource,
    account: WalletOptions,
    **place: Any,
) -> None:
    """Put standard input on air, and print the addresses to listen to. It ends with the input.

    With SHOW, of 'dtp show create', money drives it: nothing is read or sent while nobody pays, and what was sent is
    posted to be paid. It goes on after a restart, and ends when the show has ended on the chain.

    \b
    Examples:
      ffmpeg -re -i film.mkv -c copy -f matroska - | dtp show broadcast
      tail -f prices | dtp show broadcast --cut lines --title prices
      dtp show broadcast 0x... --command 'ffmpeg -f v4l2 -i /dev/video0 -f matroska -'
      dtp show broadcast --for dtp1ALICE... --for dtp1BOB... < film.webm
    """
    source = source_of(cutter_of(cut, every), program)
    options: dict[str, Any] = {"title": title, "media": media, "service": service, "fan_out": fan_out}
    options |= {"topic": topic, "over": over, "relays": relays}
    options |= {"identity": identity.load_or_make(), "place": _place(**place), "rotate": sealing.rotate}
    if show_id is None:
        sealing.check_free()
        options["admission"] = sealing.guests
        serve_for_long()

        async def free(chain: ChainClient | None = None) -> None:
            await _broadcast(
                lambda: Broadcast(**options),
                source,
                record,
                lambda on_air: _beside(on_air, page_of(on_air, gateway), sealing, place["listen"], chain),
            )

        if sealing.key_price is None:
            run(free())
        else:
            account.run_connected(free)
        return
    store = config.data_dir() / "shows"

    async def work(chain: ChainClient) -> None:
        options["admission"] = await sealing.admission_of(chain, show_id)
        await _broadcast(
            lambda: Broadcast(show_id, wallet=chain, store=store, **options),
            source,
            record,
            lambda on_air: _beside(on_air, page_of(on_air, gateway, chain), sealing, place["listen"], chain),
        )

    account.run_connected(work)


@contextlib.asynccontextmanager
async def _beside(
    on_air: Broadcast,
    page: contextlib.AbstractAsyncContextManager[None],
    sealing: SealingOptions,
    listen: Sequence[str],
    chain: ChainClient | None,
) -> AsyncIterator[None]:
    """Serve the page of a show, and sell its keys, while it is on air."""
    async with page, sealing.sell_keys(on_air, chain, listen):
        yield


async def _broadcast(
    make: Callable[[], Broadcast],
    source: Source,
    record: Path | None,
    page: Callable[[Broadcast], contextlib.AbstractAsyncContextManager[None]],
) -> None:
    on_air = make()
    try:
        async with on_air, page(on_air):
            with _recording(record, on_air.announcement) as recorder:
                for address in on_air.addresses:
                    told = {"event": "listening", "address": address, "show": on_air.announcement.show.hex()}
                    print_line(told, address)
                if recorder is not None:
                    on_air.on_sent = recorder.add
                await send_while_on_air(on_air, source, lambda air: tell_air(on_air, air))
                if on_air.keeper is None or on_air.keeper.air == Air.ENDED:
                    await on_air.end()
                    await on_air.wait_drained()
            _raise_recording_fault(recorder)
    finally:  # also after Ctrl-C, which is how most shows end
        tell_costs(on_air)
    count = on_air.signer.position.number
    print_line({"event": "ended", "segments": count}, f"ended: {count_of(count, 'segment')}", err=True)


@contextlib.contextmanager
def _recording(path: Path | None, announcement: Announcement) -> Iterator[Recorder | None]:
    """Yield a recorder if a path is given, and print at the end what the recording is called.

    Raise `RecordingError` at the beginning if it can't be created. If it can't be written any more later, that is
    printed at once, and the show goes on: call `_raise_recording_fault` at its end.
    """
    if path is None:
        yield None
        return
    recorder = Recorder(path, announcement, _tell_recording_fault)
    try:
        yield recorder
    finally:
        name = recorder.close()
        record = {"event": "recorded", "path": str(path), "sha256": name, "whole": recorder.fault is None}
        print_line(record, f"recorded: {path}, sha256 {name}", err=True)


def _raise_recording_fault(recorder: Recorder | None) -> None:
    if recorder is not None and recorder.fault is not None:
        raise recorder.fault


def _tell_recording_fault(fault: RecordingError) -> None:
    print_line({"event": "recording-failed", "why": str(fault)}, f"{fault}: the show goes on", err=True)


# ---- listening ---------------------------------------------------------------------------------------------


def _check_show_alone(ctx: click.Context, param: click.Parameter, texts: tuple[str, ...]) -> tuple[str, ...]:
    shows = [each for each in texts if each.startswith("0x")]
    if shows and len(texts) > 1:
        raise click.UsageError(
            f"give a SHOW of the chain alone, or addresses and which show has to be heard there: --show {shows[0]}"
        )
    return texts


@show.command()
@click.argument("addresses", nargs=-1, required=True, callback=_check_show_alone, metavar="ADDRESS|SHOW...")
@click.option("--producer", callback=parse_peer, metavar="dtp1...",
              help="Who must have signed the show. [default: whose the first address is]")  # fmt: skip
@click.option("--show", "show_id", metavar="ID", help="Which show it must be. [default: whichever is there]")
@click.option("--from", "start", type=click.IntRange(0), metavar="NUMBER", help="Begin with this segment.")
@click.option("--back", type=duration(), default="0s",
              help="Begin so long before what is live; by a --topic, only --over a broker.")  # fmt: skip
@click.option("--give-up", type=duration(0.1), default=f"{Patience().lost:g}s", show_default=True,
              help="End with exit code 5 when nothing of the producer was heard for so long.")  # fmt: skip
@click.option("--record", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE",
              help="Keep in FILE what is heard.")  # fmt: skip
@click.option("--gateway", callback=parse_place, metavar="HOST:PORT",
              help="Serve a page that plays the show there, and a playlist (HLS); write nothing.")  # fmt: skip
@_topic_option
@_over_option
@click.option("--lan", is_flag=True,
              help="Dial private addresses that others tell of, wherever they are themselves.")  # fmt: skip
@click.option("--no-share", is_flag=True, help="Don't pass the show on to others.")
@_relay_option
@_place_options
@identity_options("--identity", "-i")
@chain_options
@buying_options
@ticket_option
@verbose_option
@json_option
def listen(
    addresses: tuple[str, ...],
    producer: PeerId | None,
    show_id: str | None,
    start: int | None,
    back: float,
    give_up: float,
    record: Path | None,
    gateway: tuple[str, int] | None,
    topic: str | None,
    over: Engine | None,
    lan: bool,
    no_share: bool,
    relays: tuple[PeerId, ...],
    fan_out: int,
    identity: IdentitySource,
    account: WalletOptions,
    payment: PaymentOptions,
    key_lasts: float,
    ticket: bytes | None,
    **place: Any,
) -> None:
    """Listen to a show: its bytes go to standard output, with --json a line for each segment. It ends with the show.

    Nothing is written that the producer didn't sign. A sealed show is opened with your identity, and with the tickets
    of its account, or of --wallet; where keys are sold, a --budget buys them. Segments that are lost are named on
    standard error. Meanwhile the show is passed on to others who ask, under an identity made for this run, where you
    don't name one: so you may listen with several devices. A producer that sends nothing for a while is waited for;
    one that is gone without an end is given up, once what was heard is written.

    \b
    Examples:
      dtp show listen dtp+tcp://dtp1...@192.0.2.7:9700/show | mpv -
      dtp show listen dtp+tcp://dtp1...@192.0.2.7:9700/show --gateway 127.0.0.1:8080
      dtp show listen dtp+tcp://dtp1RELAY...@192.0.2.9:9700/show --producer dtp1... --record FILE
    """
    serve_for_long()
    account.check_named()
    where = _place(**place)
    if no_share:
        where = Place((), where.discover, where.bootstrap, where.private)
    of_chain = addresses[0] if len(addresses) == 1 and addresses[0].startswith("0x") else ""
    teller: Nearness | None = None
    if of_chain:
        show_id, producer, addresses, teller = _of_the_chain(account, addresses[0], give_up, lan)
    me = owner = identity.load_or_make()
    if me.id == (producer or Address.parse(addresses[0]).peer):  # nobody can hear a show through itself
        me = Identity.generate()
        print_line({"event": "identity", "listener": str(me.id)}, _OWN_SHOW, err=True)
    stream = lambda: listen_to(  # noqa: E731  # within the loop
        *addresses,
        identity=me,
        node_identity=None if identity.named or me is not owner else Identity.generate(),
        claims=claims_of(account, owner, me.id, ticket),
        buy=buyer_of(payment, me),
        key_lasts=key_lasts,
        producer=producer,
        show=None if show_id is None else parse_show(show_id),
        place=where,
        start=start,
        back_ms=round(back * 1000),
        fan_out=fan_out,
        relays=relays,
        patience=Patience(anybody=give_up, lost=give_up),
        topic=topic,
        over=over,
        teller=teller,
        lan=lan,
    )
    money = None if not of_chain or gateway is None else (lambda: watching(account, of_chain))
    follow = None if not of_chain else (lambda each: _follow_hint(each, account, of_chain))
    try:
        run(_listen(stream, record, gateway, money, follow, _Age(None if start is not None else back)))
    except BrokenPipeError:  # the reader of our output has enough
        discard_output()


def _of_the_chain(
    account: WalletOptions, id: str, patience: float, lan: bool
) -> tuple[str, PeerId, tuple[str, ...], Nearness]:
    """Return a show's id, its producer, where the chain says that it is heard, and how near those are who say so.
    Wait until the chain says it.

    Raise `ShowUnreachable` after `patience` seconds, and `AddressError` for an address that is never dialled when
    told.
    """

    async def work(chain: ChainClient) -> tuple[str, PeerId, tuple[str, ...], Nearness]:
        from dtp.broadcast.money.shows import check_hint, read_show

        found = (await read_show(chain, id)).show
        words = f"{id} doesn't say where it is heard; its producer says so when it is started"
        if not found.hint:
            print_line({"event": "waiting", "why": words}, f"{words}: waiting for that", err=True)
        loop = asyncio.get_running_loop()
        given_up = loop.time() + patience
        while not found.hint:
            if found.state == ShowState.ENDED:
                raise BroadcastError(f"{id} has ended, and never said where it is heard")
            if loop.time() >= given_up:
                raise ShowUnreachable(words)
            await asyncio.sleep(_LOOK)
            found = (await read_show(chain, id)).show
        if found.state == ShowState.ENDED:
            words = f"{id} has ended: what was sent is heard only where somebody still has it"
            print_line({"event": "over", "why": words}, words, err=True)
        where = found.hint.decode(errors="replace")
        teller = nearness_of_chain(chain)
        check_hint(where, min(teller, Nearness.NETWORK) if lan else teller)
        return found.id, PeerId(found.key), (where,), teller

    return account.run_connected(work, signing=False)


async def _follow_hint(stream: ShowStream, account: WalletOptions, id: str) -> None:
    """While a show isn't heard, check whether the chain now says that it is heard elsewhere."""
    from dtp.broadcast.money.shows import read_show

    while True:
        await asyncio.sleep(_LOOK)
        if not stream.is_heard:
            # The chain may be unavailable, or have no address: the next read may succeed.
            with contextlib.suppress(DtpError):
                async with account.make_client(signing=False) as chain:
                    hint = (await read_show(chain, id)).show.hint.decode(errors="replace")
                    stream.add_addresses(hint, teller=nearness_of_chain(chain))


async def _listen(
    make: Callable[[], ShowStream],
    record: Path | None,
    place: tuple[str, int] | None,
    money: Callable[[], contextlib.AbstractAsyncContextManager[ShowWatcher]] | None,
    follow: Callable[[ShowStream], Coroutine[Any, Any, None]] | None,
    age: _Age,
) -> None:
    """Write what is heard to standard output; or serve it to browsers until this is ended from outside."""
    async with make() as stream, contextlib.AsyncExitStack() as stack:
        if follow is not None:
            following = SupervisedTask(lambda: follow(stream), name="dtp-show-hint")
            following.start()
            stack.push_async_callback(following.stop)
        for address in stream.addresses:
            print_line({"event": "listening", "address": address}, f"passed on at {address}", err=True)
        announcement = await _announced(stream)
        told = {"event": "show", "title": announcement.title, "media": announcement.media}
        who = str(announcement.producer)
        print_line(
            {**told, "producer": who}, f"{who}: {escape_text(announcement.title)}".rstrip(": "), err=True
        )
        async with page_beside(stream, place, money):
            with _recording(record, announcement) as recorder:
                async for each in stream:
                    age.look(each)
                    await _hear(each, quiet=place is not None)
                    if recorder is not None:
                        recorder.add(each.segment, each.carried)
            await stream.wait_drained()  # listeners of this process may have received more than the recording
        _raise_recording_fault(recorder)


async def _announced(stream: ShowStream) -> Announcement:
    """Wait for the show, and print every few seconds why it isn't heard."""
    waiting = start_task(stream.announcement(), name="dtp-show-announcement")
    try:
        while not (await asyncio.wait({waiting}, timeout=_SAY_WHY))[0]:
            why = escape_text(str(stream.receiver.why or "no answer yet"))
            print_line({"event": "waiting", "why": why}, f"the show isn't heard yet: {why}", err=True)
        return await waiting
    finally:
        waiting.cancel()


class _Age:
    """Reports once that what is heard as live was sent long ago, since anybody can send an old show again."""

    def __init__(self, back: float | None) -> None:
        """`back` is how many seconds behind live was asked for; None if it was a segment number."""
        self._back = back

    def look(self, each: HeardSegment) -> None:
        """Check the first segment that has something to play."""
        if self._back is None or each.is_init or not each.segment.size:
            return
        hours = (time.time() - each.segment.time_ms / 1000 - self._back) / 3600
        self._back = None
        if hours > _OLD:
            words = (
                f"what is heard was sent {hours:.1f} hours ago by its producer's clock: the show pauses, "
                "somebody sends it again, or a clock is wrong"
            )
            print_line({"event": "old", "time_ms": each.segment.time_ms}, words, err=True)


async def _hear(each: HeardSegment, *, quiet: bool) -> None:
    if each.missed:
        words = f"lost: segments {each.missed.start} to {each.missed.stop - 1}"
        print_line(
            {"event": "gap", "first": each.missed.start, "last": each.missed.stop - 1}, words, err=True
        )
    if wants_json():
        segment = each.segment
        record = {
            "event": "segment",
            "number": segment.number,
            "size": segment.size,
            "time_ms": segment.time_ms,
        }
        more = {"init": each.is_init, "link": segment.link.hex(), "behind_ms": each.behind_ms}
        print_line({**record, **more}, None)
    elif not quiet:
        await asyncio.get_running_loop().run_in_executor(None, write_output, each.data)


@show.command()
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE")
@click.option(
    "--from", "start", type=click.IntRange(0), default=0, metavar="NUMBER", help="Begin with this segment."
)
@identity_options("--identity", "-i")
@verbose_option
@json_option
def play(file: Path, start: int, identity: IdentitySource) -> None:
    """Write a recorded show to standard output, checked as it is read; with --json only check it.

    What is sealed is opened with your identity, as far as the recording has keys for it.
    """
    with contextlib.closing(Recording(file)) as recording:
        count = 0
        opener = Opener(identity.load_or_make()) if recording.announcement.sealed else None
        try:
            for segment, data in recording.segments(start):
                count += 1
                if not wants_json():
                    write_output(data if opener is None else opener.open_segment(segment, data))
        except BrokenPipeError:
            discard_output()
            return
        told = recording.announcement
    if wants_json():
        record = {"title": told.title, "media": told.media, "producer": str(told.producer), "segments": count}
        print_result({**record, "show": told.show.hex(), "ended": recording.ended})
    elif not recording.ended:
        print_line({}, f"{file} ends before the show does", err=True)


def _parse_hash(ctx: click.Context, param: click.Parameter, text: str) -> bytes:
    with contextlib.suppress(ValueError):
        if len(found := bytes.fromhex(text)) == 32:
            return found
    raise click.BadParameter(
        f"{text!r} is not a SHA-256: 64 hex digits, as 'dtp show broadcast --record' prints"
    )


# ---- finished shows, by their hash -------------------------------------------------------------------------


@show.command()
@click.argument(
    "files", nargs=-1, required=True, type=click.Path(dir_okay=False, path_type=Path), metavar="FILE..."
)
@_place_options
@identity_options("--identity", "-i")
@verbose_option
@json_option
def keep(files: tuple[Path, ...], identity: IdentitySource, fan_out: int, **place: Any) -> None:
    """Serve recorded shows to whoever knows their SHA-256, until this is ended: 'dtp show fetch' gets them.

    With --discover dht the DHT is told who has them, so that they are found when their producer is gone. Who serves
    them doesn't matter, so that is an identity made for this run, where you don't name one: a name of yours may be in
    use by 'dtp show broadcast'.

    \b
    Examples:
      dtp show keep evening.show --discover dht --bootstrap HOST:PORT
    """
    serve_for_long()
    run(_keep(files, identity.load_if_named(), _place(**place)))


async def _keep(files: tuple[Path, ...], identity: Identity, place: Place) -> None:
    server = await asyncio.to_thread(RecordingServer, files)
    hashes = [each.hex() for each in server.files]
    async with place.node(identity, {RECORDINGS: server.serve_connection}) as node:
        for each, path in zip(hashes, server.files.values(), strict=True):
            print_note({"event": "recording", "sha256": each, "path": str(path)}, f"{each}  {path}")
        for address in addresses_of(node, RECORDINGS):
            print_line({"event": "keeping", "address": address, "sha256": hashes}, address)
        if "dht" in place.discover:
            for each in hashes:
                await node.dht.provide(bytes.fromhex(each))
                print_line({"event": "provided", "sha256": each}, each)
        await asyncio.Event().wait()


@show.command()
@click.argument("sha256", callback=_parse_hash, metavar="SHA256")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE")
@click.argument("addresses", nargs=-1, metavar="[ADDRESS]...")
@_place_options
@identity_options("--identity", "-i")
@verbose_option
@json_option
def fetch(
    sha256: bytes,
    file: Path,
    addresses: tuple[str, ...],
    identity: IdentitySource,
    fan_out: int,
    **place: Any,
) -> None:
    """Fetch a recorded show by its SHA-256 into FILE: from these addresses, or from whom the DHT names.

    \b
    Examples:
      dtp show fetch 5feceb66... evening.show --discover dht --bootstrap HOST:PORT
      dtp show fetch 5feceb66... evening.show dtp+tcp://dtp1...@192.0.2.7:9700/recordings
    """
    run(_fetch(sha256, file, addresses, identity.load_if_named(), _place(**place)))


async def _fetch(
    digest: bytes, file: Path, addresses: tuple[str, ...], identity: Identity, place: Place
) -> None:
    async with place.node(identity, {}) as node:
        places = [*addresses]
        if "dht" in place.discover:
            places += await places_in_dht(node, digest)
        await fetch_recording(digest, file, places, dial_found(node, addresses))
    print_line({"event": "fetched", "path": str(file), "sha256": digest.hex()}, str(file))
