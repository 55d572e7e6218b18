"""Cards of people: who somebody is, with which devices and mailboxes; safety numbers to compare them by."""

from dtp.messaging.cards.contact_card import ContactCard, ContactCardError
from dtp.messaging.cards.safety import compare_code, safety_code, safety_number

__all__ = ["ContactCard", "ContactCardError", "compare_code", "safety_code", "safety_number"]
