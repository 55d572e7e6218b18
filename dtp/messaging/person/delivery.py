"""Delivery between a person's desk and mailboxes: collect from our own, deliver to those of others."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Collection, Coroutine, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, Final, TypeVar

from dtp.carriers.nearness import Nearness
from dtp.errors import DtpError, LimitError, PeerError
from dtp.identity import Identity
from dtp.messaging.cards import ContactCardError
from dtp.messaging.errors import StoreFailed
from dtp.messaging.mailbox.client import MailboxClient
from dtp.messaging.mailbox.pool import ConnectMailbox, MailboxPool
from dtp.messaging.mailbox.protocol import REASONS, MailboxRefused, Refusal
from dtp.messaging.mailbox.store import Tray, access_hash
from dtp.messaging.person.attachments import Attachment, put_pieces
from dtp.messaging.person.correspondence import Correspondence
from dtp.messaging.person.desk import Outbound
from dtp.messaging.person.groups.group_states import MAX_STATE, WantedState
from dtp.messaging.person.notices import CallSignalled, Notice, What
from dtp.tasks import SupervisedTask, TaskSet, start_task

log = logging.getLogger("dtp.messaging")
_T = TypeVar("_T")

#: Envelopes that are opened in one transaction.
_BATCH: Final = 64
#: One-time keys that are kept in each mailbox, and the number below which more are made.
_ONE_TIME: Final = 50
_FEW: Final = 25
#: Seconds between checks for what has to be published or deleted.
_KEEP_UP: Final = 300.0
#: Seconds after which mailboxes are tried again.
_RETRY: Final = 30.0
#: ... for the first time.
_FIRST_PAUSE: Final = 0.5
#: Seconds for which a turn waits for all mailboxes together. What takes longer goes on in the background.
_TURN: Final = 1.0
#: ... and for our own mailboxes, to which a group's state is uploaded.
_UPLOAD_TURN: Final = 30.0
#: ... and that it takes for mailboxes to have a card that has changed: a program may end at once.
_PUBLISH_TURN: Final = 5.0
#: Seconds for which a mailbox keeps an envelope.
LIFETIME: Final = 30 * 86_400
#: Seconds until an acknowledgement is sent, one for all that is received meanwhile.
_ANSWER: Final = 0.05


class MailboxRequests:
    """Requests to mailboxes, for each device. A slow mailbox delays no other device."""

    def __init__(self, wake: asyncio.Event) -> None:
        """`wake` is set when there is more to do: a slow mailbox has answered."""
        self._wake = wake
        self._asking: dict[asyncio.Task[None], bytes] = {}
        #: Devices whose mailboxes took longer than a turn, and those whose mailboxes have answered since.
        self._slow: set[bytes] = set()
        self._answered: set[bytes] = set()
        self._failures: dict[bytes, int] = {}

    def __len__(self) -> int:
        return len(self._asking)

    async def ask_all(self, work: list[tuple[bytes, Coroutine[Any, Any, None]]]) -> None:
        """Make a request for each device. A turn doesn't wait for mailboxes that were slow before, nor for more than
        a second: those go on in the background."""
        asked = {start_task(each, name="dtp-messages-ask"): device for device, each in work}
        self._asking |= asked
        if prompt := [task for task, device in asked.items() if device not in self._slow]:
            await asyncio.wait(prompt, timeout=_TURN)
        for task, device in asked.items():
            if not task.done():
                self._slow.add(device)
                task.add_done_callback(lambda _: self._wake.set())
        self.take_results()

    def take_results(self) -> None:
        """Take the results of tasks that are done. Raise errors of this machine, such as a store that can't be
        written."""
        for task in [each for each in self._asking if each.done()]:
            del self._asking[task]
            task.result()

    def waited_for(self) -> set[bytes]:
        """Return the devices whose mailboxes haven't answered yet."""
        return {device for task, device in self._asking.items() if not task.done()}

    def note_answered(self, device: bytes) -> None:
        """Note that a device's mailbox has answered: what was held back for the device goes out."""
        self._failures.pop(device, None)
        if device in self._slow:
            self._slow.discard(device)
            self._answered.add(device)
            self._wake.set()

    def take_answered(self) -> Iterator[bytes]:
        """Yield the devices for which nothing is held back any more, each once."""
        for device in self._answered - self.waited_for():
            self._answered.discard(device)
            yield device

    def retry_at(self, device: bytes) -> int:
        """Return when to try an unreachable device again: after a longer time at each try."""
        failures = self._failures[device] = min(self._failures.get(device, 0) + 1, 16)
        return now_ms() + int(1000 * min(_FIRST_PAUSE * 2**failures, _RETRY))

    async def stop(self) -> None:
        """Cancel all requests."""
        for asked in self._asking:
            asked.cancel()
        await asyncio.gather(*self._asking, return_exceptions=True)


class DueAnswers:
    """Devices that need an acknowledgement, and devices with which a new session has to begin."""

    def __init__(self, wake: asyncio.Event) -> None:
        """`wake` is set when some are due: acknowledgements follow after a moment, one for all that came
        meanwhile."""
        self._wake = wake
        self._answers: set[bytes] = set()
        self._repairs: set[bytes] = set()
        self._timer: asyncio.TimerHandle | None = None

    def add(self, answers: Iterable[bytes], repairs: Iterable[bytes]) -> None:
        """Add devices of either kind."""
        self._answers.update(answers)
        self._repairs.update(repairs)
        if self._repairs:
            self._wake.set()
        if self._answers and self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_ANSWER, self._wake_up)

    def _wake_up(self) -> None:
        self._timer = None
        self._wake.set()

    def take_repairs(self) -> set[bytes]:
        """Return the devices that need a new session, each once."""
        repairs, self._repairs = self._repairs, set()
        return repairs

    def take_answers(self, besides: set[bytes]) -> set[bytes]:
        """Return the devices that are due an acknowledgement, each once; those in `besides` stay due."""
        if self._timer is not None:
            return set()
        answers, self._answers = self._answers - besides, self._answers & besides
        return answers

    def cancel(self) -> None:
        """Cancel the timer: nothing becomes due any more."""
        if self._timer is not None:
            self._timer.cancel()


class Delivery:
    """The tasks that deliver for a `Correspondence`, which runs in its own thread. `start` and `stop` them."""

    def __init__(
        self,
        correspondence: Correspondence,
        thread: ThreadPoolExecutor,
        connect: ConnectMailbox,
        on_notices: Callable[[Iterable[Notice | CallSignalled]], None],
    ) -> None:
        self._thread = thread
        self._mail = correspondence
        self._connect = connect
        self._on_notices = on_notices
        self._wake = asyncio.Event()
        #: Set while everything that can be delivered now is delivered.
        self.settled = asyncio.Event()
        self._requests = MailboxRequests(self._wake)
        self._due = DueAnswers(self._wake)
        self._delivering = SupervisedTask(self._deliver_always, name="dtp-messages-deliver")
        self._collecting: dict[str, SupervisedTask] = {}
        self.pool = MailboxPool(connect, own=self._collecting)
        #: Clients of the mailboxes from which this device collects, by address; added once its keys are published
        #: there.
        self.own: dict[str, MailboxClient] = {}
        #: Checks now and then what room costs at each of them, and pays for it.
        self.on_kept_up: Callable[[str, MailboxClient], Awaitable[None]] | None = None
        #: Deposits an envelope that needs a paid stamp, or raises the refusal that it is given.
        self.on_stamp_needed: Callable[[MailboxClient, Outbound, MailboxRefused], Awaitable[None]] | None = (
            None
        )
        #: Set whenever one of its mailboxes was reached.
        self.reached = asyncio.Event()
        self._refusals_told: set[Notice] = set()
        self._has_told_calls = False
        #: Set whenever a mailbox was told to delete what was received.
        self.took = asyncio.Event()
        #: Called after something was received.
        self.on_received: Callable[[], None] | None = None
        #: Set by `wake_up`, for the tasks that spread messages in groups.
        self.woken = asyncio.Event()
        #: Envelopes that are being sent to a mailbox.
        self.under_way: set[Outbound] = set()
        self._tasks = TaskSet()
        self._fetching = asyncio.Lock()  # one at a time: others say how large they are

    @property
    def correspondence(self) -> Correspondence:
        """The correspondence for which it delivers."""
        return self._mail

    @property
    def identity(self) -> Identity:
        """The identity that collects."""
        return self._mail.identity

    async def run_in_thread(self, work: Callable[..., _T], *arguments: Any, **options: Any) -> _T:
        """Run `work` in the correspondence's thread, and return its result. Raise what it raises."""

        def call() -> _T:
            return work(*arguments, **options)

        return await asyncio.get_running_loop().run_in_executor(self._thread, call)

    def start(self) -> None:
        """Begin to deliver, and to collect from the mailboxes in the person's own card."""
        self._delivering.start()
        self.collect_from(self._mail.card.mailboxes)

    def collect_from(self, addresses: Iterable[str]) -> None:
        """Collect from these mailboxes from now on, and no others."""
        wanted = set(addresses)
        for address in self._collecting.keys() - wanted:
            self._collecting.pop(address).cancel()
        for address in wanted - self._collecting.keys():
            task = SupervisedTask(partial(self._collect_always, address), name="dtp-messages-collect")
            self._collecting[address] = task
            task.start()

    async def stop(self) -> None:
        """Stop all tasks. What isn't delivered is kept, and goes out the next time."""
        await self._delivering.stop()
        await self._requests.stop()
        await self.run_in_thread(self._put_back)
        for task in self._collecting.values():
            await task.stop()
        self._due.cancel()
        await self._tasks.stop()
        await self.pool.close()

    def forget_own(self, address: str, client: MailboxClient) -> None:
        """Wait for another connection to a mailbox of ours: this one is over."""
        if self.own.get(address) is client:
            del self.own[address]

    def wake_up(self) -> None:
        """Have what waits delivered soon: something was written here, or has changed."""
        self.deliver_soon()
        self.woken.set()

    def deliver_soon(self) -> None:
        """Deliver what is due by now."""
        self.settled.clear()
        self._wake.set()

    async def count_unsent(self, besides: bytes = b"", message: bytes = b"") -> int:
        """Return how many payloads were never sent to a mailbox, as `MessageStore.count_unsent` does, and for a
        single message also those that a mailbox hasn't confirmed yet. Payloads for blocked people aren't counted, nor
        are, of a message to others, those for our own devices, of which one may not have joined yet."""
        return await self.run_in_thread(self._count_unsent, {besides}, message)

    def _count_unsent(self, besides: set[bytes], message: bytes) -> int:
        mail, store = self._mail, self._mail.store
        under_way = tuple(self.under_way) if message else ()  # at once: the loop removes entries
        found = store.find_message(message, mail.person) if message else None
        besides.update(mail.own_devices if found and found[0] != mail.person else ())
        for each in mail.contacts:
            besides.update(device for device in mail.contacts.list_owned(each) if not each.may_have(device))
        return store.count_unsent(besides, message) + sum(
            store.is_first_try(each.device, each.number, message)
            for each in under_way
            if each.number is not None and each.device not in besides
        )

    async def wait_sent(self, besides: bytes = b"", message: bytes = b"") -> None:
        """Wait until `count_unsent` returns 0."""
        await self.settled.wait()
        while await self.count_unsent(besides, message):
            self.settled.clear()
            await self.settled.wait()

    def start_task(self, work: Coroutine[Any, Any, None], *, name: str) -> None:
        """Start a task that runs until it ends or `stop` is called."""
        self._tasks.start(work, name=name)

    # ---- collecting --------------------------------------------------------------------------------------------

    async def _collect_always(self, address: str) -> None:
        pause = _FIRST_PAUSE
        while True:
            try:
                client = await self._connect(address, self.identity)
            except (DtpError, TimeoutError) as fault:
                log.info("the mailbox %s can't be reached: %s", address, fault)
            else:
                if await self._collect_envelopes(address, client, pause):
                    pause = _FIRST_PAUSE
            await asyncio.sleep(pause)
            pause = min(2 * pause, _RETRY)

    async def _collect_envelopes(self, address: str, client: MailboxClient, pause: float) -> bool:
        """Collect from one mailbox until its connection ends. Return whether it has accepted our keys. `pause` is the
        pause before the next try."""
        signals = TaskSet(lambda task, fault: None)  # they end with the connection
        is_in = False
        try:
            await self._publish_keys(client)
            await self._look_whether_revoked(client)
            if self._mail.stamp_mib and await client.get_price() is None:
                self._on_notices([Notice(What.STAMPS_NOT_SOLD, detail=address)])
            await client.watch_tray(Tray.KNOWN)
            await client.watch_tray(Tray.STRANGERS)
            self.own[address] = client
            is_in = True
            self.reached.set()
            await self._tell_calls()
            signals.start(self._take_signals(client), name="dtp-messages-signals")
            signals.start(self._keep_up(address, client), name="dtp-messages-keys")
            while await self._take_pushes(client):
                pass
        except DtpError as fault:
            log.info("the mailbox %s: %s", address, fault)
            if isinstance(fault, StoreFailed):
                self._on_notices([Notice(What.STORE_FAILED, detail=str(fault))])
            self._tell_refusal(address, fault, pause)
        finally:
            self.forget_own(address, client)
            await signals.stop()
            await client.close()
        return is_in

    async def _tell_calls(self) -> None:
        """Notify the program once of calls that came before it began, after mailboxes had time to say how these
        ended."""
        if not self._has_told_calls:
            self._has_told_calls = True
            self._on_notices(await self.run_in_thread(self._mail.store.calls.list_calls))

    async def forget_calls(self, calls: Collection[bytes]) -> None:
        """Forget these calls: they were dealt with, or the program was told of them."""
        if calls:
            await self.run_in_thread(self._forget_calls, calls)

    def _forget_calls(self, calls: Collection[bytes]) -> None:
        with self._mail.transaction():
            self._mail.store.calls.drop_calls(calls)

    def _tell_refusal(self, address: str, fault: DtpError, pause: float) -> None:
        """Notify the program once that a mailbox refuses our keys, and why: nobody could write to us there."""
        if not isinstance(fault, MailboxRefused):
            return
        if fault.refusal in (Refusal.TOO_OFTEN, Refusal.STORE_AWAY) and pause < _RETRY:  # that passes
            return
        notice = Notice(What.MAILBOX_REFUSES, detail=f"{address}: {REASONS[fault.refusal]}")
        if fault.refusal is Refusal.CLOCK_DIFFERS:
            notice = Notice(What.CLOCK_DIFFERS, detail=address)
        if notice not in self._refusals_told:
            self._refusals_told.add(notice)
            self._on_notices([notice])

    def _tell_nearer(self, device: bytes) -> None:
        """Notify the program once of a contact who can't be reached, since their mailboxes are nearer than the source
        of their addresses."""
        contact = self._mail.contacts.owner_of(device)
        if contact is None or contact.blocked or not contact.card.is_nearer(contact.nearness):
            return
        notice = Notice(What.MAILBOX_NEARER, contact.person, contact.person, detail=contact.name)
        if notice not in self._refusals_told and not {*contact.card.mailboxes} & {*self._mail.card.mailboxes}:
            self._refusals_told.add(notice)
            self._on_notices([notice])

    async def _publish_keys(self, client: MailboxClient) -> None:
        left = 0
        with contextlib.suppress(MailboxRefused):
            left = (await client.get_status()).one_time_keys
        count = _ONE_TIME - left if left < _FEW else 0
        keys, one_time = await self.run_in_thread(self._mail.desk.keys_to_publish, count, now_ms())
        await client.publish_keys(keys, one_time)
        await client.set_access(access_hash(self._mail.access), self._mail.stamp_bits, self._mail.stamp_mib)
        with contextlib.suppress(MailboxRefused):  # the mailbox has a newer card from another device of ours
            await client.put_card(self._mail.card)
        await self._upload_states(client)

    async def _look_whether_revoked(self, client: MailboxClient) -> None:
        """Notify the program once if a mailbox of ours has a newer card that doesn't name this device, from another
        device of ours: whoever is revoked is sent nothing more, and wouldn't hear of it."""
        mail = self._mail
        for device in mail.own_devices:
            try:
                card = await client.get_card(device)
            except (MailboxRefused, ContactCardError):  # there is none yet
                continue
            is_newer = card.person == mail.person and card.supersedes(mail.card)
            if is_newer and mail.identity.id.key not in card.devices:
                told = await self.run_in_thread(mail.take_found_card, card, client.nearness, now_ms())
                self._on_notices(each for each in told if each not in self._refusals_told)
                self._refusals_told.update(told)

    async def _upload_states(self, client: MailboxClient) -> None:
        """Upload states of our groups that others are to fetch to a mailbox of ours; again if the mailbox has lost
        them."""
        where = (client, self.identity.id.key, self._mail.access, LIFETIME)
        try:
            for pieces in await self.run_in_thread(self._mail.group_states.list_pieces, now_ms()):
                await put_pieces(*where, pieces)
        except MailboxRefused as fault:  # a device that can't fetch a state asks for it
            log.info("a group's state isn't in the mailbox: %s", fault)

    async def _upload_soon(self) -> None:
        """Upload them to all mailboxes of ours, in the background if that takes long."""

        async def put(client: MailboxClient) -> None:
            with contextlib.suppress(DtpError):  # it is done whenever the mailbox is reached again
                await self._upload_states(client)

        begun = [self._tasks.start(put(each), name="dtp-messages-upload") for each in self.own.values()]
        if begun:
            await asyncio.wait(begun, timeout=_UPLOAD_TURN)

    async def publish_again(self) -> None:
        """Publish our current card and keys to our mailboxes, in the background where one takes long."""
        clients = list(self.own.values())
        begun = [self._tasks.start(self._publish_once(each), name="dtp-messages-publish") for each in clients]
        if begun:
            await asyncio.wait(begun, timeout=_PUBLISH_TURN)

    async def _publish_once(self, client: MailboxClient) -> None:
        with contextlib.suppress(DtpError):  # it is done whenever the mailbox is reached again
            await self._publish_keys(client)

    async def _keep_up(self, address: str, client: MailboxClient) -> None:
        while True:
            if self.on_kept_up is not None:
                await self.on_kept_up(address, client)
            await asyncio.sleep(_KEEP_UP)
            await self._publish_keys(client)
            await self._look_whether_revoked(client)

    async def _take_signals(self, client: MailboxClient) -> None:
        while True:
            await self._receive_envelopes([await client.connection.recv_datagram()], client.nearness)

    async def _take_pushes(self, client: MailboxClient) -> bool:
        """Take what the mailbox has pushed. Return False at the end of the connection."""
        first = await client.pushes.get()
        pushes = [first]
        while first is not None and not client.pushes.empty() and len(pushes) < _BATCH:
            pushes.append(client.pushes.get_nowait())
        kept = [each[1] for each in pushes if each is not None]
        if kept:
            await self._receive_envelopes([each.envelope for each in kept], client.nearness)
            await client.acknowledge_envelopes([each.id for each in kept])
            self.took.set()
        return pushes[-1] is not None

    async def _receive_envelopes(self, envelopes: list[bytes], teller: Nearness) -> None:
        receive = partial(self._mail.receive_envelopes, teller=teller)
        received, notices = await self.run_in_thread(receive, envelopes, now_ms())
        self._on_notices(notices)
        if any(isinstance(each, Notice) and each.what is What.OWN_CARD for each in notices):
            self.collect_from(self._mail.card.mailboxes)
        if self.on_received is not None:
            self.on_received()
        self._due.add(received.answers, received.repairs)
        waits = self._mail.group_states.is_wanted or self._mail.past.waits
        if received.resends or received.fleeting or waits:
            self._wake.set()

    # ---- delivering --------------------------------------------------------------------------------------------

    async def _deliver_always(self) -> None:
        await self.run_in_thread(self._mail.desk.send_now)  # put off while an earlier program ran
        while True:
            self._wake.clear()
            due = await self._deliver_due()
            if not self._wake.is_set() and not self._requests:
                self.settled.set()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(due):
                    await self._wake.wait()

    async def _deliver_due(self) -> float:
        """Deliver what is due. Return the seconds until something is due again, as far as is known."""
        desk = self._mail.desk
        requests = self._requests
        requests.take_results()
        for device in requests.take_answered():
            await self.run_in_thread(desk.send_now, device)
        repairs = self._due.take_repairs()
        await requests.ask_all([(device, self._repair_session(device)) for device in repairs])
        for wanted in await self.run_in_thread(self._mail.group_states.take_wanted, now_ms()):
            self._tasks.start(self._fetch_state(wanted), name="dtp-messages-state")
        beginning = await self.run_in_thread(self._find_sessions_to_begin, now_ms())
        await requests.ask_all([(device, self._begin_soon(device)) for device in beginning])
        while sealed := await self._seal_next():
            await requests.ask_all([(each.device, self._send_outbound(each)) for each in sealed])
        waited_for = requests.waited_for()  # they get one answer to all, later
        answers = self._due.take_answers(waited_for)
        await requests.ask_all([(device, self._send_answer(device)) for device in answers])
        await self.run_in_thread(self._mail.keep_up, now_ms())
        self._on_notices(await self.run_in_thread(self._mail.group_states.take_notices))
        waits = await self.run_in_thread(self._list_waits)
        return min(max(min(waits, default=_KEEP_UP), 0.01), _KEEP_UP)

    def _list_waits(self) -> list[float]:
        """Return in how many seconds something has to be sent, and in how many a message disappears, where there is
        any."""
        store, now = self._mail.store, now_ms()
        return [(at - now) / 1000 for at in (store.next_due(), store.next_vanishing()) if at is not None]

    def _hold_back(self) -> None:
        """Put off what is for devices whose mailboxes haven't answered yet."""
        if waiting := self._requests.waited_for():
            self._mail.desk.hold_back(waiting, now_ms() + int(1000 * _RETRY))

    async def _fetch_state(self, wanted: WantedState) -> None:
        """Fetch a group's state from the mailboxes of the device that has offered it."""
        route = self._mail.find_route(wanted.device)
        try:
            size, key, roots = wanted.fields
            file = Attachment("state", size, key, roots, route.mailboxes, self.pool, route.teller)
            async with self._fetching:
                state = await file.read(limit=MAX_STATE)
                take = self._mail.group_states.take_fetched
                notices = await self.run_in_thread(take, wanted, state, now_ms())
        except (PeerError, LimitError) as fault:
            log.info("a group's state can't be fetched: %s", fault)
            return
        self._on_notices(notices)

    def _find_sessions_to_begin(self, now: int) -> list[bytes]:
        self._mail.spreading.hand_over_due(now)
        self._mail.past.give_due(now)
        self._hold_back()
        return self._mail.desk.devices_without_session(now)

    async def _begin_session(self, device: bytes) -> bool:
        """Begin a session with a device by the keys in its mailboxes. Return whether one has begun."""
        route = self._mail.find_route(device)

        async def ask(client: MailboxClient) -> bool:
            bundle = await client.get_keys(device, now_ms())
            await self.run_in_thread(self._mail.desk.begin_session, device, bundle)
            return True

        return await self.pool.try_each(route.mailboxes, route.teller, ask)

    async def _begin_soon(self, device: bytes) -> None:
        """Begin a session with a device, or put off what waits for the device."""
        if await self._begin_session(device):
            self._requests.note_answered(device)
        else:
            await self.run_in_thread(self._mail.desk.put_off, device, self._requests.retry_at(device))
            self._tell_nearer(device)

    async def _repair_session(self, device: bytes) -> None:
        if await self._begin_session(device):
            await self._send_answer(device, repair=True)
            self._on_notices([Notice(What.REPAIRED, device)])

    async def _send_answer(self, device: bytes, *, repair: bool = False) -> None:
        outbound = await self.run_in_thread(self._mail.desk.seal_answer, device, repair=repair)
        if outbound is not None:
            await self._send_outbound(outbound)

    async def _send_outbound(self, outbound: Outbound) -> None:
        await self._send_anywhere(outbound)
        self.under_way.discard(outbound)

    async def _seal_next(self) -> list[Outbound]:
        """Seal what is due, and return it. Groups' states that it names are uploaded first, if a mailbox of ours can
        be reached: a device that fetches one too early tries again only after minutes."""
        while True:
            if self._mail.group_states.is_given:
                await self._upload_soon()
            if (sealed := await self.run_in_thread(self._seal_due)) is not None:
                return sealed

    def _seal_due(self) -> list[Outbound] | None:
        """Seal what is due, and return it; None if another state has to be uploaded first."""
        if self._mail.group_states.is_given and self.own:
            return None
        self._hold_back()
        sealed = self._mail.desk.seal_due(now_ms())
        self.under_way.update(sealed)  # here: the task that waits for this may be cancelled
        return sealed

    def _put_back(self) -> None:
        """Put back what was being sent when delivery stopped: it counts as sent, though perhaps no mailbox has it."""
        for each in self.under_way:
            self._mail.desk.not_sent(each, now_ms())

    async def _send_anywhere(self, outbound: Outbound) -> None:
        addresses, access, teller = self._mail.find_route(outbound.device)

        async def deposit(client: MailboxClient) -> bool:
            to, envelope = outbound.device, outbound.envelope
            if not self._mail.find_route(to).mailboxes:  # the device was revoked meanwhile
                return False
            try:
                await client.deposit_with_work(to, envelope, seconds=LIFETIME, access=access)
            except MailboxRefused as refused:
                if not refused.stamp_mib or self.on_stamp_needed is None:
                    raise
                await self.on_stamp_needed(client, outbound, refused)
            return True

        if not await self.pool.try_each(addresses, teller, deposit):
            await self.run_in_thread(
                self._mail.desk.not_sent, outbound, self._requests.retry_at(outbound.device)
            )
            self._tell_nearer(outbound.device)
        else:
            self._requests.note_answered(outbound.device)

    async def send_signal(self, devices: Iterable[bytes], payload: bytes) -> None:
        """Send a transient payload to those of the devices that are connected now; it is never stored."""
        await asyncio.gather(*(self._send_signal(device, payload) for device in devices))

    async def _send_signal(self, device: bytes, payload: bytes) -> None:
        addresses, access, teller = self._mail.find_route(device)
        outbound = await self.run_in_thread(self._mail.desk.seal_answer, device, payload=payload)
        if outbound is None:
            return
        envelope = outbound.envelope

        async def ask(client: MailboxClient) -> bool:
            await client.send_signal(device, envelope, access)
            return True

        await self.pool.try_each(addresses, teller, ask)


def now_ms() -> int:
    """Return Unix time in ms."""
    return int(time.time() * 1000)
