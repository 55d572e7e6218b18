"""`dtp call`: talk to people, or send and record media, by calls of the messenger."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any

import click

from dtp.cli.messenger import WAIT, deliver, messenger_options, open_messenger
from dtp.cli.output import print_line, print_note, print_result
from dtp.cli.run import run, when_stdin_ends
from dtp.escaping import escape_text
from dtp.messaging.calls.book import Phase
from dtp.messaging.calls.calling import ActiveCall, CallEnded, Calls
from dtp.messaging.calls.media import MediaEnd
from dtp.messaging.calls.signals import Reason
from dtp.messaging.errors import MediaUnusable
from dtp.messaging.person.messenger import Messenger
from dtp.tasks import start_task

#: The reasons for which a successful call ends.
_WELL = (Reason.HUNG_UP,)


@click.command()
@click.argument("person", required=False)
@click.option("--answer", is_flag=True, help="Wait for a call, and answer it: of PERSON, or of any contact.")
@click.option("--refuse", is_flag=True, help="With --answer: refuse it.")
@click.option("--file", "-f", type=click.Path(exists=True, dir_okay=False), metavar="FILE",
              help="Send a file of audio or video, and hang up at its end.")  # fmt: skip
@click.option("--camera", metavar="DEVICE", help="Send what a camera sees, such as /dev/video0.")
@click.option(
    "--microphone", metavar="DEVICE", help="Send what a microphone hears: 'default', or a device of ALSA."
)
@click.option("--record", "-r", type=click.Path(dir_okay=False, allow_dash=True), metavar="FILE",
              help="Write what comes into a file (.mkv, .mp4, .webm); - is standard output.")  # fmt: skip
@click.option("--stun", multiple=True, metavar="URL",
              help="Ask this server (stun:HOST:PORT) for this machine's address from outside.")  # fmt: skip
@click.option("--relay", metavar="URL",
              help="Have media go by this relay where there is no direct way: relay://...")  # fmt: skip
@click.option("--hide-address", is_flag=True, help="Don't tell the other end this machine's addresses.")
@click.option("--until-eof", is_flag=True, help="Hang up when standard input ends.")
@messenger_options
def call(
    person: str | None,
    answer: bool,
    refuse: bool,
    file: str | None,
    camera: str | None,
    microphone: str | None,
    record: str | None,
    stun: tuple[str, ...],
    relay: str | None,
    hide_address: bool,
    until_eof: bool,
    **who: Any,
) -> None:
    """Call PERSON, or wait for a call. Ctrl-C hangs up.

    It rings on all devices of the person that run 'dtp call --answer' or another program that takes calls; the first
    one to answer gets it. Both ends learn each other's IP addresses.

    \b
    Examples:
      dtp call alice --camera /dev/video0 --microphone default --record - | ffplay -
      dtp call alice --file greeting.mp4
      dtp call --answer --record message.mkv
    """
    if person is None and not answer:
        raise click.UsageError("say whom to call, or --answer")
    if refuse and not answer:
        raise click.UsageError("--refuse is for --answer")
    if relay is not None and answer:
        raise click.UsageError("--relay is for the caller only: the other end is told of it")
    if hide_address and relay is None and not answer:
        raise click.UsageError("with --hide-address media has to go by a --relay")
    end = MediaEnd(
        file=file,
        camera=camera,
        microphone=microphone,
        record=record,
        on_media=_say_media(record),
        stun=stun,
        hide_address=hide_address,
    )
    relays = () if relay is None else (relay,)
    opened = open_messenger(**who)
    run(_call(opened, person, answer, refuse, end, until_eof, relays, quiet=record == "-"))


def _say_media(record: str | None) -> Any:
    def say(kind: str) -> None:
        _say({"event": "media", "kind": kind}, f"{kind} comes", quiet=record == "-")

    return say


def _say(record: dict[str, Any], text: str, *, quiet: bool) -> None:
    """Print what happens: to standard error if standard output carries the recording."""
    if quiet:
        print_note(record, text)
    else:
        print_line(record, text, err=True)


async def _call(
    opened: AbstractAsyncContextManager[Messenger],
    person: str | None,
    answer: bool,
    refuse: bool,
    end: MediaEnd,
    until_eof: bool,
    relays: Sequence[str],
    *,
    quiet: bool,
) -> None:
    stop = asyncio.Event()
    for each in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(each, stop.set)
    if until_eof:
        when_stdin_ends(stop.set)
    async with opened as messenger:
        await messenger.wait_reached()
        async with Calls(messenger, relays=relays) as calls:
            if answer:
                _say({"event": "waiting"}, "waiting for a call", quiet=quiet)
            finding = start_task(_begin(calls, person, answer, refuse, end), name="dtp-call")
            stopping = start_task(stop.wait(), name="dtp-stop")
            try:
                await asyncio.wait((finding, stopping), return_when=asyncio.FIRST_COMPLETED)
                reason = await _follow(finding.result(), end, stop, quiet=quiet) if finding.done() else None
            finally:
                await _cancel(finding, stopping)
        await deliver(messenger, WAIT)
    if end.recording_fault:
        raise MediaUnusable(end.recording_fault)
    if reason is not None and reason not in _WELL and not (refuse and reason is Reason.REFUSED):
        raise CallEnded(reason)
    if not quiet:
        print_result({"event": "over", "reason": reason.name.lower() if reason else None}, "the call is over")


async def _cancel(*tasks: asyncio.Task[Any]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def _begin(calls: Calls, person: str | None, answer: bool, refuse: bool, end: MediaEnd) -> ActiveCall:
    """Return the call that this side made, or the first one that it answered."""
    if not answer:
        assert person is not None
        return await calls.call(await calls.messenger.find_person(person), end)
    wanted = calls.messenger.conversation_of(person) if person is not None else None
    async for each in calls:
        if wanted is not None and each.contact.person != wanted:
            continue
        if refuse:
            await each.refuse()
        else:
            await each.answer(end)
        return each
    raise AssertionError("calls don't end")


async def _follow(call: ActiveCall, end: MediaEnd, stop: asyncio.Event, *, quiet: bool) -> Reason:
    """Print what happens to a call until it is over. It is hung up when the file that is sent ends, or when told to
    stop."""

    async def hang_up_after(event: asyncio.Event) -> None:
        await event.wait()
        await call.hang_up()

    tasks = [start_task(hang_up_after(each), name="dtp-hang-up") for each in (end.source_ended, stop)]
    try:
        async for phase in call.phases():
            if phase is not Phase.OVER:
                told = {"event": phase.value, "person": call.contact.card.person_name}
                _say(told, f"{phase.value.replace('-', ' ')}: {escape_text(call.contact.name)}", quiet=quiet)
    finally:
        await _cancel(*tasks)
    return call.reason or Reason.FAILED
