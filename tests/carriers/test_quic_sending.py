"""Packets that leave in rows: the other side gets each by itself, and nothing is sent that the kernel refuses."""

import errno
import socket
import sys

import pytest

pytest.importorskip("qh3", reason="qh3 not installed (the extra quic)")

from hypothesis import given
from hypothesis import strategies as st

from dtp.carriers.quic.sending import (
    ALONE_FOR,
    MOST_ALONE,
    MOST_BYTES,
    MOST_SEGMENTS,
    RowSender,
    group_packets,
)

HERE, THERE = ("192.0.2.1", 1), ("192.0.2.2", 2)
PACKETS = st.lists(
    st.tuples(
        st.sampled_from([b"", b"a", bytes(29), bytes(1200), bytes(1350)]), st.sampled_from([HERE, THERE])
    ),
    max_size=200,
)


@given(PACKETS, st.sampled_from([1, 2, MOST_SEGMENTS]))
def test_rows_have_all_packets_in_their_order_as_the_kernel_cuts_them(packets, most):
    rows = list(group_packets(packets, most))
    assert [(data, row.address) for row in rows for data in row.packets] == packets
    for row in rows:
        first, *rest = map(len, row.packets)
        assert len(row.packets) <= most
        assert sum([first, *rest]) <= MOST_BYTES
        assert all(each == first for each in rest[:-1])
        assert not rest or rest[-1] <= first


def bound(family: int, host: str) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_DGRAM)
    sock.settimeout(5)
    sock.bind((host, 0))
    return sock


@pytest.mark.parametrize("connected", [False, True])
@pytest.mark.parametrize(("family", "host"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")])
def test_each_packet_of_a_row_comes_by_itself(family, host, connected):
    lengths = [*[1200] * 70, 40, 1200, 29, 29]
    with bound(family, host) as there, bound(family, host) as here:
        if connected:
            here.connect(there.getsockname())
        sender = RowSender(here, connected=connected)
        packets = [bytes([at]) * each for at, each in enumerate(lengths)]
        rows = list(sender.group((data, there.getsockname()[:2]) for data in packets))
        for row in rows:
            sender.send_row(row)
            for data in row.packets:
                assert there.recv(65536) == data
        if sys.platform == "linux":
            assert [len(row.packets) for row in rows] == [54, 17, 2, 1]


class Refusing:
    """A socket whose kernel, or device, cuts nothing up; what it sends is kept."""

    def __init__(self, code: int) -> None:
        self.code, self.sent = code, []

    def getsockopt(self, *_: object) -> int:
        return 0

    def sendmsg(self, *_: object) -> None:
        raise OSError(self.code, "refused")

    def sendto(self, data: bytes, address: object) -> None:
        self.sent.append((data, address))


def sender_of_rows(sock: Refusing) -> RowSender:
    """One that sends rows, on any system."""
    sender = RowSender(sock, connected=False)
    sender.most = MOST_SEGMENTS
    return sender


def send_packets(sender: RowSender, packets: list[tuple[bytes, tuple[str, int]]]) -> list[int]:
    """Send them; how long the rows were."""
    rows = list(sender.group(packets))
    for row in rows:
        sender.send_row(row)
    return [len(row.packets) for row in rows]


@pytest.mark.parametrize("code", [errno.EIO, errno.EINVAL, errno.EMSGSIZE, errno.EOPNOTSUPP])
def test_where_rows_are_refused_packets_go_one_by_one_for_a_while(code):
    sock = Refusing(code)
    sender = sender_of_rows(sock)
    packets = [(bytes(1200), THERE)] * 8
    assert send_packets(sender, packets) == [8]
    for _ in range(ALONE_FOR // 8):
        assert send_packets(sender, packets) == [1] * 8
    assert sock.sent == packets * (1 + ALONE_FOR // 8)
    assert send_packets(sender, packets) == [8]  # it may have another way by now


class OneNarrowWay(Refusing):
    """A socket whose way to `THERE` takes no packets of that length."""

    def sendmsg(self, buffers: list[bytes], how: object, flags: int, address: object) -> None:  # type: ignore[override]
        if address == THERE:
            raise OSError(errno.EMSGSIZE, "too long")
        self.sent.extend((data, address) for data in buffers)

    def sendto(self, data: bytes, address: object) -> None:
        if address == THERE and len(data) > 1000:
            raise OSError(errno.EMSGSIZE, "too long")
        super().sendto(data, address)


def test_a_way_that_takes_no_rows_ends_those_of_no_other():
    """One peer behind a narrow way, as through a tunnel, had a whole listener send one by one from then on."""
    sock = OneNarrowWay(0)
    sender = sender_of_rows(sock)
    sent = [(bytes(1200), HERE)] * 5 + [(bytes(1200), THERE)] * 3 + [(bytes(900), THERE)]
    assert send_packets(sender, sent) == [5, 4]
    assert send_packets(sender, sent) == [5, 1, 1, 1, 1]
    assert sock.sent == [each for each in sent if each[1] == HERE or len(each[0]) < 1000] * 2


def test_of_hosts_with_such_a_way_the_latest_are_known():
    sock = Refusing(errno.EMSGSIZE)
    sender = sender_of_rows(sock)
    hosts = [[(b"a", (str(each), 1))] * 2 for each in range(MOST_ALONE + 1)]
    assert [send_packets(sender, each) for each in hosts] == [[2]] * len(hosts)
    assert [send_packets(sender, each) for each in hosts[1:]] == [[1, 1]] * MOST_ALONE
    assert send_packets(sender, hosts[0]) == [2]


@pytest.mark.parametrize("code", [errno.EAGAIN, errno.ENETUNREACH])
def test_what_is_refused_otherwise_is_lost_and_rows_go_on(code):
    sock = Refusing(code)
    sender = sender_of_rows(sock)
    (row,) = sender.group([(bytes(1200), THERE)] * 5)
    with pytest.raises(OSError, match="refused"):
        sender.send_row(row)
    assert (sock.sent, sender.most) == ([], MOST_SEGMENTS)


class Ignoring(Refusing):
    """A socket of a kernel that is older than rows: it passes over what it doesn't know of a message."""

    def getsockopt(self, *_: object) -> int:
        raise OSError(errno.ENOPROTOOPT, "unknown")

    def sendmsg(self, buffers: list[bytes], how: object, flags: int, address: object) -> None:  # type: ignore[override]
        self.sent.append((b"".join(buffers), address))


def test_a_kernel_that_knows_no_rows_is_given_none():
    """It sent each row as one packet of 64 KiB, which the other side drops, and said nothing."""
    sock = Ignoring(0)
    sender = RowSender(sock, connected=False)
    packets = [(bytes(1200), THERE)] * 5
    for row in sender.group(packets):
        sender.send_row(row)
    assert sock.sent == packets
