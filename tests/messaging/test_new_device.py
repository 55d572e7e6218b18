"""Whom a new device of ours takes for whom: strangers and those who are blocked stay that there."""

from __future__ import annotations

from collections.abc import Callable

from post_office import known_identity
from village import NOW, Village

from dtp.identity import Account, Device
from dtp.messaging.calls.signals import SignalAct
from dtp.messaging.conversation.events import Event, EventKind
from dtp.messaging.person.notices import CallSignalled


def test_strangers_and_those_who_are_blocked_are_that_on_a_new_device(
    village: Callable[..., Village],
) -> None:
    """They rang there, and what they wrote counted as a contact's."""
    world = village("laptop", "phone", "bob", "mallory", "carol")
    laptop, phone, bob, mallory, carol = (
        world.people[each] for each in ("laptop", "phone", "bob", "mallory", "carol")
    )
    for each in laptop.contacts:
        phone.contacts.drop_contact(each)
        phone.store.drop_contact(each.person)
    laptop.update_contact(mallory.person, stranger=True)
    laptop.update_contact(bob.person, blocked=True)
    devices = [Device(each.identity.id.key, "") for each in (laptop, phone)]
    laptop.change_account(Account.create(known_identity("key"), known_identity("recovery").id, devices), NOW)
    phone.join_account(laptop.card, NOW)
    laptop.missed.send_history(phone.identity.id.key, 0, NOW)
    world.deliver()
    found = {each.person: (each.stranger, each.blocked) for each in phone.contacts}
    assert found[mallory.person] == (True, False)
    assert found[bob.person] == (False, True)
    assert found[carol.person] == (False, False)

    def rings(who: str) -> bool:
        """True if the phone rings when somebody calls it."""
        mail = world.people[who]
        mail.add_contact(laptop.card, NOW)
        event = Event(EventKind.CALL, mail.person, 0, NOW, {"call": bytes(16), "act": int(SignalAct.RINGING)})
        mail.say_to_devices([phone.identity.id.key], event, NOW)
        mail.desk.begin_session(phone.identity.id.key, world.bundle("phone"))
        sealed = [each.envelope for each in mail.desk.seal_due(NOW) if each.device == phone.identity.id.key]
        _, notices = phone.receive_envelopes(sealed, NOW)
        return any(isinstance(each, CallSignalled) for each in notices)

    assert {who: rings(who) for who in ("carol", "mallory", "bob")} == {
        "carol": True, "mallory": False, "bob": False
    }  # fmt: skip
