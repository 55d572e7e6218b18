"""What was written in the chat, and can't be done."""

from dtp.errors import LocalError


class ChatMistake(LocalError):
    """What was written in the chat can't be done as it was written."""

    code = "chat-mistake"
