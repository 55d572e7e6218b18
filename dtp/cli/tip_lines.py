"""`dtp tip open`, `send`, `read`, `answer`, `forget`: both ends of a line for tips."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from dtp.cli.accounts import WalletOptions, account_options, tell_history
from dtp.cli.joining import bootstrap_option, discover_option, listen_option, ways
from dtp.cli.messenger import make_folder, read_card_text, save_option
from dtp.cli.options import IdentitySource, has_terminal, identity_options, verbose_option
from dtp.cli.output import json_option, print_line, print_note, print_result, wants_json
from dtp.cli.posts import identity_option, load_identity, read_fee
from dtp.cli.run import run, serve_for_long, when_stdin_ends
from dtp.config import data_dir
from dtp.errors import ConfigError
from dtp.escaping import JOINERS, escape_text
from dtp.identity import Identity, PeerId
from dtp.messaging.cards import ContactCard
from dtp.messaging.cards.contact_card import MAX_MAILBOXES
from dtp.messaging.errors import MessageError
from dtp.messaging.mailbox import MAILBOX_SERVICE, Mailbox, SqliteMailbox
from dtp.messaging.mailbox.limits import MIB
from dtp.messaging.mailbox.stamps import DEFAULT_BITS, MAX_BITS
from dtp.messaging.person.attachments import (
    Attachment,
    AttachmentBroken,
    AttachmentGone,
    AttachmentTooLarge,
)
from dtp.messaging.person.card_sources import DhtCards
from dtp.messaging.tips.errors import AttachmentsNotCarried, LineUnreached, TipError
from dtp.messaging.tips.letter import TipLetter
from dtp.messaging.tips.line import TipLine
from dtp.messaging.tips.line_store import Tip
from dtp.messaging.tips.tipster import Tipster
from dtp.messaging.tips.words import TipWords
from dtp.net.address import Address
from dtp.net.listener import Handler
from dtp.node.node import Node
from dtp.plurals import count_of

if TYPE_CHECKING:
    from dtp.chain import ChainClient
    from dtp.peers.dht import Dht

#: Seconds between two visits to the line's mailboxes and keys.
_KEEP_UP: Final = 3600.0
#: The most bytes of a file with words that are read.
_MAX_WORDS_FILE: Final = 4096

store_option = click.option(
    "--store", type=click.Path(dir_okay=False), envvar="DTP_TIPS", metavar="FILE",
    help="What the line keeps. [default: $DTP_TIPS, else tips/dtp1....sqlite in the data folder]",
)  # fmt: skip
_attach_option = click.option(
    "--attach", "-a", multiple=True, type=click.Path(exists=True, dir_okay=False, path_type=Path), metavar="FILE",
    help="Attach a file, drawn anew without what it says of its maker; repeatable.",
)  # fmt: skip
_as_is_option = click.option(
    "--as-is", is_flag=True, help="Send attachments as they are, with their names and all that is in them."
)
_limit_option = click.option(
    "--limit-mib", type=click.IntRange(min=1), default=64, show_default=True,
    help="Fetch no attachment above this, MiB.",
)  # fmt: skip
_host_option = click.option(
    "--host", metavar="0X...", help="Through the chain: the host object whose endpoint the line is."
)


def words_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--words` and `--words-file`. The command gets the arguments of `read_words`."""
    command = click.option("--words", "ask_words", is_flag=True, help="Ask for the words of the tip.")(
        command
    )
    return click.option(
        "--words-file", metavar="FILE", help="A file with the words of the tip; '-' for standard input."
    )(command)


def read_words(ask_words: bool, words_file: str | None) -> TipWords | None:
    """Return the given words; None if there are none. Raise `WordsWrong`, `ConfigError`."""
    if words_file is not None:
        try:
            with click.open_file(words_file, encoding="utf-8") as file:
                return TipWords.parse(file.read(_MAX_WORDS_FILE))
        except (OSError, UnicodeDecodeError) as fault:
            raise ConfigError(f"can't read the words in {words_file}: {fault}") from None
    if not ask_words:
        return None
    if not has_terminal():
        raise click.UsageError("words are asked for at a terminal and there is none; give --words-file")
    return TipWords.parse(click.prompt("words", hide_input=True, err=True))


def open_line(identity: Identity, store: str | None, **options: Any) -> TipLine:
    """Return the line of an identity, which isn't opened yet."""
    path = Path(store) if store else data_dir() / "tips" / f"{identity.id}.sqlite"
    return TipLine(identity=identity, store=path, **options)


# ---- the owner -------------------------------------------------------------------------------------------------


@click.command("open")
@click.option("--mailbox", "mailboxes", multiple=True, metavar="ADDRESS",
              help="Where tips are kept, as 'dtp mailbox serve' does; repeatable. [default: here]")  # fmt: skip
@click.option("--name", help="What the line is called in its card.")
@click.option("--stamp-bits", type=click.IntRange(0, MAX_BITS), default=DEFAULT_BITS, show_default=True,
              metavar="BITS", help="Work that each letter takes; 16 are a tenth of a second.")  # fmt: skip
@click.option("--output", "-o", type=click.Path(dir_okay=False), help="Write the card into a file, too.")
@click.option("--until-eof", is_flag=True, help="End when standard input ends.")
@discover_option
@listen_option
@bootstrap_option
@store_option
@identity_options("--identity", "-i")
@verbose_option
@json_option
def open_(
    mailboxes: tuple[str, ...],
    name: str | None,
    stamp_bits: int,
    output: str | None,
    until_eof: bool,
    discover: tuple[str, ...],
    listen: tuple[str, ...],
    bootstrap: tuple[str, ...],
    store: str | None,
    identity: IdentitySource,
) -> None:
    """Open a line for tips: print its card, be found by its name, take what comes. Ctrl-C ends it.

    The card (or dtp1..., on this network and with -d dht in the DHT) is for everybody. With --mailbox tips are kept
    while this doesn't run. 'dtp tip read' shows them.

    \b
    Examples:
      dtp tip open --name "The Herald" --listen tcp://0.0.0.0:9701
      dtp tip open --mailbox dtp+tcp://dtp1...@box.example:9700/dtp.mailbox -d lan -d dht
    """
    me = identity.load_identity()
    options = {"listen": listen, "discover": ways(discover), "bootstrap": bootstrap}
    opened = {"name": name, "stamp_bits": stamp_bits, "store": store}
    serve_for_long()
    run(_serve(me, options, list(mailboxes), output, until_eof, opened))


async def _serve(
    me: Identity,
    options: dict[str, Any],
    mailboxes: list[str],
    output: str | None,
    until_eof: bool,
    opened: dict[str, Any],
) -> None:
    from dtp.messaging.tips.finding import TIP_SERVICE, serve_card

    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    if until_eof:
        when_stdin_ends(stop.set)
    opening: asyncio.Future[TipLine] = asyncio.get_running_loop().create_future()
    services: dict[str, Handler] = {TIP_SERVICE: serve_card(opening)}
    async with AsyncExitStack() as stack:
        if not mailboxes:
            kept = SqliteMailbox(data_dir() / "tips" / f"{me.id}.mailbox.sqlite")
            stack.callback(kept.close)
            box = Mailbox(kept)
            stack.push_async_callback(box.stop)
            services[MAILBOX_SERVICE] = box.serve
        node = await stack.enter_async_context(Node(identity=me, services=services, **options))
        here = [str(each.with_service(MAILBOX_SERVICE)) for each in node.addresses[:MAX_MAILBOXES]]
        line = await stack.enter_async_context(open_line(me, mailboxes=mailboxes or here, **opened))
        opening.set_result(line)
        dht = node.dht if "dht" in options["discover"] else None
        await _publish(dht, line)
        _print_line(line, output)
        await _keep_up(dht, line, stop)


async def _publish(dht: Dht | None, line: TipLine) -> None:
    await line.publish()
    if dht is not None:
        await DhtCards(dht).publish_card(line.card)


def _print_line(line: TipLine, output: str | None) -> None:
    text = line.card.public().text
    if output:
        Path(output).write_text(text + "\n")
    record = {
        "event": "open",
        "line": str(line.identity.id),
        "mailboxes": list(line.card.mailboxes),
        "card": text,
    }
    print_line(record, f"{line.identity.id}\n{text}")


async def _keep_up(dht: Dht | None, line: TipLine, stop: asyncio.Event) -> None:
    """Collect letters, so that mailboxes don't fill up, and renew keys, until `stop` is set."""
    while not stop.is_set():
        try:
            await _publish(dht, line)
            await line.collect()
            await line.send_waiting()
        except LineUnreached as fault:
            print_note({"event": "unreached"}, f"the line's mailboxes can't be reached now: {fault}")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_KEEP_UP):
                await stop.wait()


@click.command()
@click.argument("tip", metavar="DTP1...")
@click.argument("text", nargs=-1, required=True)
@_attach_option
@_as_is_option
@store_option
@_host_option
@identity_option
@account_options
def answer(
    tip: str,
    text: tuple[str, ...],
    attach: tuple[Path, ...],
    as_is: bool,
    store: str | None,
    host: str | None,
    identity: Path | None,
    account: WalletOptions,
) -> None:
    """Write TEXT under a tip, by its key, as the owner of the line.

    A tip that came through the chain is answered there: with --host, by the wallet that owns the host.
    """
    key, me, said = PeerId.parse(tip), load_identity(identity, account), " ".join(text)
    if host is not None and attach:
        raise AttachmentsNotCarried

    async def work(chain: ChainClient | None) -> None:
        async with open_line(me, store) as line:
            found = await line.find_tip(key)
            if chain is not None:
                from dtp.messaging.tips.posts import answer_post

                await answer_post(chain, line, found, said)
                return
            await line.answer(found, said, attachments=attach, as_is=as_is)

    if host is not None:
        account.run_connected(work)
    else:
        run(work(None))
    print_result({"tip": str(key), "sent": True}, "sent")


@click.command()
@click.argument("tip", metavar="DTP1...")
@store_option
@identity_options("--identity", "-i")
@json_option
def forget(tip: str, store: str | None, identity: IdentitySource) -> None:
    """Delete a tip and all that was written under it, as the owner of the line."""
    key, me = PeerId.parse(tip), identity.load_identity()

    async def work() -> None:
        async with open_line(me, store) as line:
            await line.forget(await line.find_tip(key))

    run(work())
    print_result({"forgotten": str(key)}, "forgotten")


# ---- whoever gives a tip ---------------------------------------------------------------------------------------


@click.command()
@click.argument("line", metavar="LINE")
@click.argument("text", nargs=-1, required=True)
@_attach_option
@_as_is_option
@words_options
@click.option("--bootstrap", "-b", multiple=True, metavar="HOST:PORT",
              help="Look for the line in the DHT as well, beginning with this node; may be repeated.")  # fmt: skip
@click.option(
    "--fee", metavar="AMOUNT", help="Through the chain: what the host's owner gets. [default: its least]"
)
@account_options
def send(
    line: str,
    text: tuple[str, ...],
    attach: tuple[Path, ...],
    as_is: bool,
    ask_words: bool,
    words_file: str | None,
    bootstrap: tuple[str, ...],
    fee: str | None,
    account: WalletOptions,
) -> None:
    """Give a tip: write TEXT to a LINE, and print the words to come back with. Nothing is kept here.

    LINE is a card or a file that has one, dtp1... for a line on this network (with -b in the DHT), an address
    dtp+tcp://dtp1...@HOST:PORT/dtp.tip, or dtp://0x<host object>/<service> through the chain, where everybody sees
    who paid the gas. With the words of an earlier tip (--words, --words-file) it goes on.

    \b
    Examples:
      dtp tip send herald.card "the bridge is cracked" --attach bridge.jpg
      dtp tip send herald.card --words "the one at the mill"
    """
    known = read_words(ask_words, words_file)
    words, said = known or TipWords.generate(), " ".join(text)
    place = _chain_place(line)

    async def through_chain(chain: ChainClient) -> None:
        from dtp.messaging.tips.posts import send_tip

        assert place is not None
        await send_tip(chain, *place, words, said, fee=await read_fee(chain, *place, fee))

    async def through_mailbox() -> None:
        async with await _find_tipster(line, bootstrap, words) as tipster:
            await tipster.send(said, attachments=attach, as_is=as_is)

    if place is not None and attach:
        raise AttachmentsNotCarried
    if place is not None:
        account.run_connected(through_chain)
    else:
        run(through_mailbox())
    record = {"sent": True, "tip": str(words.key.id)}
    if known is not None:
        print_result(record, "sent")
        return
    if not wants_json():
        click.echo("sent. Keep these words, in your head or on paper: they are the only way back.", err=True)
    print_result({**record, "words": words.text}, words.text)


def _chain_place(line: str) -> tuple[str, str] | None:
    """Return the host object and the service that a LINE names; None for other kinds of lines."""
    if not line.startswith("dtp://"):
        return None
    address = Address.parse(line)
    return (address.host_object, address.service) if address.host_object is not None else None


async def _find_tipster(line: str, bootstrap: tuple[str, ...], words: TipWords) -> Tipster:
    """Return a tip to the named line, found by its card."""
    from dtp.messaging.tips.finding import TIP_SERVICE, ask_card, find_line

    if line.startswith("dtp1"):
        found = await find_line(PeerId.parse(line), bootstrap=bootstrap)
        return Tipster(found.card, words, teller=found.teller)
    if line.startswith(("dtp+", "dtp://")):
        address = Address.parse(line)
        return Tipster(
            await ask_card(address if address.service else address.with_service(TIP_SERVICE)), words
        )
    return Tipster(ContactCard.parse_text(read_card_text(line)), words)


# ---- reading, at both ends -------------------------------------------------------------------------------------


@click.command()
@click.argument("what", metavar="[LINE|DTP1...]", required=False)
@words_options
@save_option
@_limit_option
@store_option
@_host_option
@click.option("--bootstrap", "-b", multiple=True, metavar="HOST:PORT",
              help="Look for the LINE in the DHT as well, beginning with this node; may be repeated.")  # fmt: skip
@identity_option
@account_options
def read(
    what: str | None,
    ask_words: bool,
    words_file: str | None,
    save: Path | None,
    limit_mib: int,
    store: str | None,
    host: str | None,
    bootstrap: tuple[str, ...],
    identity: Path | None,
    account: WalletOptions,
) -> None:
    """Read tips as the owner of a line; or, with the words of a tip, what the LINE has answered.

    The owner is shown what is new; with the key of a tip (dtp1...) all of its conversation, with --host what came
    through the chain as well. Whoever gave a tip is shown all answers that are kept, each time.

    \b
    Examples:
      dtp tip read --save tips
      dtp tip read herald.card --words
    """
    words, fetch = read_words(ask_words, words_file), (save, limit_mib * MIB)
    if words is None:
        me = load_identity(identity, account)
        key = None if what is None else PeerId.parse(what)
        if host is None:
            run(_read_tips(open_line(me, store), key, fetch, None, ""))
        else:
            found: str = host
            account.run_connected(
                lambda chain: _read_tips(open_line(me, store), key, fetch, chain, found), signing=False
            )
        return
    if what is None:
        raise click.UsageError("name the line that the tip was given to")
    place, line = _chain_place(what), what
    if place is None:
        run(_read_answers(line, bootstrap, words, fetch))
        return

    async def through_chain(chain: ChainClient) -> None:
        from dtp.messaging.tips.posts import read_answers

        await tell_history(chain)
        async for letter in read_answers(chain, *place, words):
            await _print_letter(letter, words.key.id.key, letter.sent_ms, [], (None, 0), own=False)

    account.run_connected(through_chain, signing=False)


async def _read_tips(
    opened: TipLine,
    key: PeerId | None,
    fetch: tuple[Path | None, int],
    chain: ChainClient | None,
    host: str,
) -> None:
    async with opened as line:
        if chain is not None:
            from dtp.messaging.tips.posts import collect_posts

            await collect_posts(chain, host, line)
        if line.card.mailboxes:
            await _collect(line)
        shown = await line.tips() if key is None else [await line.find_tip(key)]
        for tip in shown:
            await _print_tip(line, tip, fetch, everything=key is not None)


async def _collect(line: TipLine) -> None:
    try:
        await line.publish()
        await line.collect()
        if left := await line.send_waiting():
            print_note({"waiting": left}, f"{count_of(left, 'answer')} can't be sent now, and will be later")
    except LineUnreached as fault:
        print_note({"collected": False}, f"no mailbox of the line could be reached: {fault}")


async def _print_tip(line: TipLine, tip: Tip, fetch: tuple[Path | None, int], *, everything: bool) -> None:
    for kept in await line.letters(tip):
        if everything or kept.unread:
            files = line.attachments(kept.letter)
            await _print_letter(kept.letter, tip.key, kept.at_ms, files, fetch, own=kept.own)
    await line.mark_read(tip)


async def _read_answers(
    line: str, bootstrap: tuple[str, ...], words: TipWords, fetch: tuple[Path | None, int]
) -> None:
    async with await _find_tipster(line, bootstrap, words) as tipster:
        seen = await tipster.read()
        for letter in seen.letters:
            files = tipster.attachments(letter)
            tip = words.key.id.key
            await _print_letter(letter, tip, letter.sent_ms, files, fetch, own=False, name=tipster.card.name)
        if not seen.complete:
            print_note({"complete": False}, "not every mailbox of the line answered: there may be more")


async def _print_letter(
    letter: TipLetter,
    tip: bytes,
    at_ms: int,
    files: list[Attachment],
    fetch: tuple[Path | None, int],
    *,
    own: bool,
    name: str = "",
) -> None:
    folder, limit = fetch
    saved = [] if folder is None else await _save(files, letter, folder, limit)
    at = datetime.fromtimestamp(at_ms / 1000, UTC)
    record = {
        "tip": str(PeerId(tip)),
        "own": own,
        "text": letter.text,
        "at": at.isoformat(),
        "lock": letter.lock,
        "attachments": [each.name for each in files],
        "saved": saved,
    }
    names = "".join(f"\n  [{escape_text(each.name)}, {count_of(each.size, 'byte')}]" for each in files)
    lock = f"\n  a reward: dtp tip sign {letter.lock} --words --to ADDRESS" if letter.lock else ""
    who = "you" if own else escape_text(name) or str(PeerId(letter.sender))
    said = f"{who}: {escape_text(letter.text, keep=JOINERS)}{names}{lock}"
    print_line(record, f"{at:%Y-%m-%d %H:%M} {said}", keep=JOINERS)


def stored_names(letter: TipLetter, names: Iterable[str]) -> list[str]:
    """Return the file names for a letter's attachments in a folder that all letters share: the sender's names after
    a mark of the letter, made distinct if two are equal."""
    found: list[str] = []
    for number, name in enumerate(names, 1):
        kept = f"{letter.nonce.hex()[:12]}-{name}"
        found.append(f"{letter.nonce.hex()[:12]}-{number}-{name}" if kept in found else kept)
    return found


async def _save(files: list[Attachment], letter: TipLetter, folder: Path, limit: int) -> list[str]:
    """Return where the files were stored, each letter's under its own names. A failure is only printed."""
    make_folder(folder)
    found = []
    for each, name in zip(files, stored_names(letter, (each.name for each in files)), strict=True):
        try:
            saved = await each.save(folder / name, limit=limit)
        except (AttachmentTooLarge, AttachmentGone, AttachmentBroken, MessageError) as fault:
            print_note({"attachment": each.name, "code": fault.code}, str(fault))
        else:
            found.append(str(saved))
    return found


@asynccontextmanager
async def known_tip(opened: TipLine, key: PeerId) -> AsyncIterator[tuple[TipLine, Tip]]:
    """Yield a line and the tip of a key under it. Raise `TipError`."""
    async with opened as line:
        tip = await line.find_tip(key)
        if tip.reply_to is None:
            raise TipError("this tip came through the chain: answer it with 'dtp tip answer --host'")
        yield line, tip


COMMANDS: Final = (open_, send, read, answer, forget)
