"""What goes between a person's desk and the mailboxes: collecting from its own, delivering to those of others."""

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
#: One-time keys that wait in each mailbox, and when more are made.
_ONE_TIME: Final = 50
_FEW: Final = 25
#: Seconds between two looks at what has to be published, and to be deleted.
_KEEP_UP: Final = 300.0
#: Seconds after which somebody's mailboxes are tried again.
_RETRY: Final = 30.0
#: ... for the first time.
_FIRST_PAUSE: Final = 0.5
#: Seconds for which all mailboxes are waited for together: what takes longer goes on beside the rest.
_TURN: Final = 1.0
#: ... and for our own, where those are given a group's state that others fetch from there.
_UPLOAD_TURN: Final = 30.0
#: Seconds that an envelope is kept for.
LIFETIME: Final = 30 * 86_400
#: Seconds until it is said what was received, in one envelope for all that comes meanwhile.
_ANSWER: Final = 0.05


class MailboxRequests:
    """What mailboxes are asked, for each device. Nobody waits for another's mailbox."""

    def __init__(self, wake: asyncio.Event) -> None:
        """`wake` is set when there is more to do: a mailbox has answered that took long."""
        self._wake = wake
        self._asking: dict[asyncio.Task[None], bytes] = {}
        #: Devices whose mailboxes took longer than a turn, and those that have answered since.
        self._slow: set[bytes] = set()
        self._answered: set[bytes] = set()
        self._failures: dict[bytes, int] = {}

    def __len__(self) -> int:
        return len(self._asking)

    async def ask_all(self, work: list[tuple[bytes, Coroutine[Any, Any, None]]]) -> None:
        """Ask mailboxes, for each device. Those of a device that took long before, and what takes longer than a turn,
        are waited for beside the rest."""
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
        """Take the results of tasks that are done. Raise what went wrong here, such as a store that can't be
        written."""
        for task in [each for each in self._asking if each.done()]:
            del self._asking[task]
            task.result()

    def waited_for(self) -> set[bytes]:
        """Return the devices whose mailboxes haven't answered yet."""
        return {device for task, device in self._asking.items() if not task.done()}

    def note_answered(self, device: bytes) -> None:
        """Note that a device's mailbox has answered: what was held back for it goes out."""
        self._failures.pop(device, None)
        if device in self._slow:
            self._slow.discard(device)
            self._answered.add(device)
            self._wake.set()

    def take_answered(self) -> Iterator[bytes]:
        """Yield the devices for which nothing has to be held back any more, each once."""
        for device in self._answered - self.waited_for():
            self._answered.discard(device)
            yield device

    def retry_at(self, device: bytes) -> int:
        """Return when to try again to reach a device that can't be reached now: later each time."""
        failures = self._failures[device] = min(self._failures.get(device, 0) + 1, 16)
        return now_ms() + int(1000 * min(_FIRST_PAUSE * 2**failures, _RETRY))

    async def stop(self) -> None:
        """Ask for nothing more."""
        for asked in self._asking:
            asked.cancel()
        await asyncio.gather(*self._asking, return_exceptions=True)


class DueAnswers:
    """Which devices are to be told what was received, and with which a session is to be begun anew."""

    def __init__(self, wake: asyncio.Event) -> None:
        """`wake` is set when some are due: answers a moment after what has come, in one for all of that."""
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
        """Return those whose sessions are to be begun anew, each once."""
        repairs, self._repairs = self._repairs, set()
        return repairs

    def take_answers(self, besides: set[bytes]) -> set[bytes]:
        """Return those that are to be told now, each once; `besides` these, which are kept."""
        if self._timer is not None:
            return set()
        answers, self._answers = self._answers - besides, self._answers & besides
        return answers

    def cancel(self) -> None:
        """Let nothing become due any more."""
        if self._timer is not None:
            self._timer.cancel()


class Delivery:
    """Tasks around a `Correspondence`, which works in a thread of its own. `start` and `stop` them."""

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
        #: Set while all that could be delivered now is.
        self.settled = asyncio.Event()
        self._requests = MailboxRequests(self._wake)
        self._due = DueAnswers(self._wake)
        self._delivering = SupervisedTask(self._deliver_always, name="dtp-messages-deliver")
        self._collecting: dict[str, SupervisedTask] = {}
        self.pool = MailboxPool(connect, own=self._collecting)
        #: The conversations by which this device collects, by address: they are there once its keys are published.
        self.own: dict[str, MailboxClient] = {}
        #: Looks at each of them now and then: what room costs there, and whether that is paid.
        self.on_kept_up: Callable[[str, MailboxClient], Awaitable[None]] | None = None
        #: Deposits what takes a stamp that is paid, or raises what it is given.
        self.on_stamp_needed: Callable[[MailboxClient, Outbound, MailboxRefused], Awaitable[None]] | None = (
            None
        )
        #: Set whenever one of its mailboxes was reached.
        self.reached = asyncio.Event()
        self._refusals_told: set[Notice] = set()
        self._has_told_calls = False
        #: Set whenever a mailbox was told to forget what has come.
        self.took = asyncio.Event()
        #: Told after something has come.
        self.on_received: Callable[[], None] | None = None
        #: Set by `wake`, for what spreads messages in groups.
        self.woken = asyncio.Event()
        #: What was sealed and is being handed to a mailbox.
        self.under_way: set[Outbound] = set()
        self._tasks = TaskSet()
        self._fetching = asyncio.Lock()  # one at a time: others say how large they are

    @property
    def correspondence(self) -> Correspondence:
        """What it brings in and out of."""
        return self._mail

    @property
    def identity(self) -> Identity:
        """Who collects."""
        return self._mail.identity

    async def run_in_thread(self, work: Callable[..., _T], *arguments: Any, **options: Any) -> _T:
        """Return what `work` does in the correspondence's thread. Raise what it raises."""

        def call() -> _T:
            return work(*arguments, **options)

        return await asyncio.get_running_loop().run_in_executor(self._thread, call)

    def start(self) -> None:
        """Begin to deliver, and to collect from the mailboxes in the person's card."""
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
        """End all of it. What isn't delivered is kept, and goes out the next time."""
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
        """Deliver what waits, soon: something was said here, or has changed."""
        self.deliver_soon()
        self.woken.set()

    def deliver_soon(self) -> None:
        """Deliver what is due by now."""
        self.settled.clear()
        self._wake.set()

    async def count_unsent(self, besides: bytes = b"", message: bytes = b"") -> int:
        """Return how much was never sent to a mailbox, as `MessageStore.count_unsent` does; of a message also what a
        mailbox has not answered yet. What is for those who are blocked isn't counted, nor, of a message to others,
        what is for our own devices: one of them may not have joined yet."""
        return await self.run_in_thread(self._count_unsent, {besides}, message)

    def _count_unsent(self, besides: set[bytes], message: bytes) -> int:
        mail, store = self._mail, self._mail.store
        under_way = tuple(self.under_way) if message else ()  # at once: the loop takes away what is answered
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
        """Run something until it ends, or all of this does."""
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
        """Collect from one mailbox until its connection ends. Return whether it has our keys. `pause` is that before
        the next try."""
        signals = TaskSet(lambda task, fault: None)  # they end with the connection
        is_in = False
        try:
            await self._publish_keys(client)
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
        """Tell once of calls that came before this program began: mailboxes may say soon what became of them."""
        if not self._has_told_calls:
            self._has_told_calls = True
            self._on_notices(await self.run_in_thread(self._mail.store.calls.list_calls))

    async def forget_calls(self, calls: Collection[bytes]) -> None:
        """Keep nothing of these calls any more: they were dealt with, or the program was told of them."""
        if calls:
            await self.run_in_thread(self._forget_calls, calls)

    def _forget_calls(self, calls: Collection[bytes]) -> None:
        with self._mail.transaction():
            self._mail.store.calls.drop_calls(calls)

    def _tell_refusal(self, address: str, fault: DtpError, pause: float) -> None:
        """Tell once of a mailbox that doesn't take our keys, and why: nobody could write to us there."""
        if not isinstance(fault, MailboxRefused):
            return
        if fault.refusal is Refusal.TOO_OFTEN and pause < _RETRY:  # that passes
            return
        notice = Notice(What.MAILBOX_REFUSES, detail=f"{address}: {REASONS[fault.refusal]}")
        if fault.refusal is Refusal.CLOCK_DIFFERS:
            notice = Notice(What.CLOCK_DIFFERS, detail=address)
        if notice not in self._refusals_told:
            self._refusals_told.add(notice)
            self._on_notices([notice])

    def _tell_nearer(self, device: bytes) -> None:
        """Tell once of a contact whom nothing reaches, since their mailboxes are nearer than whoever told of them."""
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
        with contextlib.suppress(MailboxRefused):  # another device of ours has told it of a newer one
            await client.put_card(self._mail.card)
        await self._upload_states(client)

    async def _upload_states(self, client: MailboxClient) -> None:
        """Put what others are to fetch of our groups into a mailbox of ours: again, where it has lost it."""
        where = (client, self.identity.id.key, self._mail.access, LIFETIME)
        try:
            for pieces in await self.run_in_thread(self._mail.group_states.list_pieces, now_ms()):
                await put_pieces(*where, pieces)
        except MailboxRefused as fault:  # a device that can't fetch it asks for it
            log.info("a group's state isn't in the mailbox: %s", fault)

    async def _upload_soon(self) -> None:
        """Put it into all mailboxes of ours: beside the rest, where that takes long."""

        async def put(client: MailboxClient) -> None:
            with contextlib.suppress(DtpError):  # it is done whenever the mailbox is reached again
                await self._upload_states(client)

        begun = [self._tasks.start(put(each), name="dtp-messages-upload") for each in self.own.values()]
        if begun:
            await asyncio.wait(begun, timeout=_UPLOAD_TURN)

    def publish_again(self) -> None:
        """Tell our mailboxes of the card, and of keys, as they are now."""
        for client in list(self.own.values()):
            self._tasks.start(self._publish_once(client), name="dtp-messages-publish")

    async def _publish_once(self, client: MailboxClient) -> None:
        with contextlib.suppress(DtpError):  # it is done whenever the mailbox is reached again
            await self._publish_keys(client)

    async def _keep_up(self, address: str, client: MailboxClient) -> None:
        while True:
            if self.on_kept_up is not None:
                await self.on_kept_up(address, client)
            await asyncio.sleep(_KEEP_UP)
            await self._publish_keys(client)

    async def _take_signals(self, client: MailboxClient) -> None:
        while True:
            await self._receive_envelopes([await client.connection.recv_datagram()], client.nearness)

    async def _take_pushes(self, client: MailboxClient) -> bool:
        """Take what was pushed; False at the end."""
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
        await self.run_in_thread(self._mail.desk.send_now)  # put off when a program before this one ran
        while True:
            self._wake.clear()
            due = await self._deliver_due()
            if not self._wake.is_set() and not self._requests:
                self.settled.set()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(due):
                    await self._wake.wait()

    async def _deliver_due(self) -> float:
        """Deliver what is due. Return the seconds until something is again, as far as is known."""
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
        waited_for = requests.waited_for()  # they are told all in one, once they have answered
        answers = self._due.take_answers(waited_for)
        await requests.ask_all([(device, self._send_answer(device)) for device in answers])
        await self.run_in_thread(self._mail.keep_up, now_ms())
        self._on_notices(await self.run_in_thread(self._mail.group_states.take_notices))
        waits = await self.run_in_thread(self._list_waits)
        return min(max(min(waits, default=_KEEP_UP), 0.01), _KEEP_UP)

    def _list_waits(self) -> list[float]:
        """Return in how many seconds something is to be sent, and in how many something disappears, if anything
        is."""
        store, now = self._mail.store, now_ms()
        return [(at - now) / 1000 for at in (store.next_due(), store.next_vanishing()) if at is not None]

    def _hold_back(self) -> None:
        """Send nothing more for the time being to devices whose mailboxes haven't answered yet."""
        if waiting := self._requests.waited_for():
            self._mail.desk.hold_back(waiting, now_ms() + int(1000 * _RETRY))

    async def _fetch_state(self, wanted: WantedState) -> None:
        """Fetch a group's state from the mailboxes of the device that has told of it."""
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
        """Begin a session with a device by the keys in its mailboxes. Return whether that was done."""
        route = self._mail.find_route(device)

        async def ask(client: MailboxClient) -> bool:
            bundle = await client.get_keys(device, now_ms())
            await self.run_in_thread(self._mail.desk.begin_session, device, bundle)
            return True

        return await self.pool.try_each(route.mailboxes, route.teller, ask)

    async def _begin_soon(self, device: bytes) -> None:
        """Begin a session with a device, or put off what waits for it."""
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
        """Return what is due, sealed. Groups' states that it names are in our mailboxes first, where we reach any:
        whoever fetches one too early tries again after minutes."""
        while True:
            if self._mail.group_states.is_given:
                await self._upload_soon()
            if (sealed := await self.run_in_thread(self._seal_due)) is not None:
                return sealed

    def _seal_due(self) -> list[Outbound] | None:
        """Return what is due, sealed; None where one more state has to be uploaded before."""
        if self._mail.group_states.is_given and self.own:
            return None
        self._hold_back()
        sealed = self._mail.desk.seal_due(now_ms())
        self.under_way.update(sealed)  # in this task: the one that waits for it may be cancelled
        return sealed

    def _put_back(self) -> None:
        """Have what was being sent at the end be sent anew: it counts as tried, and no mailbox may have it."""
        for each in self.under_way:
            self._mail.desk.not_sent(each, now_ms())

    async def _send_anywhere(self, outbound: Outbound) -> None:
        addresses, access, teller = self._mail.find_route(outbound.device)

        async def deposit(client: MailboxClient) -> bool:
            to, envelope = outbound.device, outbound.envelope
            if not self._mail.find_route(to).mailboxes:  # it was revoked meanwhile
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
        """Pass on a payload of the moment to those devices that are connected now; nothing is kept of it."""
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
