"""What a process knows of a mailbox in JetStream, as a value."""

from dtp.messaging.mailbox.store import Tray
from dtp.messaging.mailbox.stream_index import Facts, Row, StreamIndex

ALICE = b"a" * 32


def record(sequence: int) -> Row:
    return Row(ALICE, facts=Facts(sequence, b"", 0, 0, 0, 0, 0))


def letter(number: int) -> Row:
    return Row(ALICE, bytes([number]) * 32, Tray.KNOWN, 0, 1000, 100)


def test_who_is_told_of_all_again_counts_it_once() -> None:
    index = StreamIndex()
    for _ in range(2):
        for number, row in enumerate([record(1), letter(1), letter(2)], 1):
            index.add_row(number, row)
    found = index.get_recipient(ALICE)
    assert found is not None
    assert (found.count, found.size, index.seen, index.count_rows(2)) == (2, 200, 3, 2)


def test_what_is_gone_is_counted_however_it_went() -> None:
    index = StreamIndex()
    index.forget_rows([3])  # before it is told of
    for number, row in enumerate([record(1), letter(1), letter(2), record(2), letter(3)], 1):
        index.add_row(number, row)
    index.forget_rows([2, 2])
    assert (index.count_rows(5), index.gone) == (2, 3)
