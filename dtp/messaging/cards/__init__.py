"""Contact cards: the devices and mailboxes of a person; and safety numbers, with which two people compare keys."""

from dtp.messaging.cards.contact_card import ContactCard, ContactCardError
from dtp.messaging.cards.safety import compare_code, safety_code, safety_number

__all__ = ["ContactCard", "ContactCardError", "compare_code", "safety_code", "safety_number"]
