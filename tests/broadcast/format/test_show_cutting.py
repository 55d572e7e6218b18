"""Where segments end: in what ffmpeg makes, in lines, by time; and however the bytes come."""

import shutil
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dtp.broadcast.cutting import CUTTERS, AutoCutter, ByteCutter, LineCutter, MatroskaCutter, Mp4Cutter
from dtp.broadcast.errors import BroadcastError
from dtp.broadcast.format import Flag
from dtp.broadcast.format.segment import MAX_SIZE

FORMS = {
    "mp4": ["-movflags", "frag_keyframe+empty_moov+default_base_moof", "-f", "mp4"],
    "matroska": ["-f", "matroska", "-cluster_time_limit", "1000"],
}


@pytest.fixture(scope="session")
def film():
    """Six seconds of video as ffmpeg makes it, by form; a key frame each second."""
    if shutil.which("ffmpeg") is None:
        pytest.skip("ffmpeg is not installed")

    def make(form):
        source = ["-f", "lavfi", "-i", "testsrc=size=160x120:rate=10:duration=6"]
        coding = ["-c:v", "libx264", "-preset", "ultrafast", "-g", "10", "-pix_fmt", "yuv420p"]
        done = subprocess.run(
            ["ffmpeg", "-v", "error", *source, *coding, *FORMS[form], "-"],
            capture_output=True,
            timeout=60,
            check=True,
        )
        return done.stdout

    return {form: make(form) for form in FORMS}


def cut(cutter, data, size):
    cuts = []
    for number, at in enumerate(range(0, len(data), size)):
        cuts += cutter.feed(data[at : at + size], number)
    return cuts + cutter.finish(0)


@pytest.mark.parametrize("form", FORMS)
def test_a_film_is_cut_where_decoding_can_begin(film, form, tmp_path):
    data = film[form]
    cuts = cut(AutoCutter(), data, 1000)
    assert b"".join(each.data for each in cuts) == data
    assert cuts[0].flags == Flag.INIT
    assert all(each.flags == Flag.START for each in cuts[1:])
    assert len(cuts) >= 7
    begun_late = tmp_path / "late"
    begun_late.write_bytes(cuts[0].data + b"".join(each.data for each in cuts[4:7]))
    done = subprocess.run(
        ["ffmpeg", "-v", "error", "-xerror", "-i", begun_late, "-f", "null", "-"],
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("size", [1, 7, 4096, 10**9])
def test_a_film_is_cut_alike_however_it_comes(film, form, size):
    data = film[form][:30_000] if size == 1 else film[form]
    whole = [(each.data, each.flags) for each in cut(CUTTERS[form](), data, len(data))]
    assert [(each.data, each.flags) for each in cut(AutoCutter(), data, size)] == whole


def test_a_cluster_of_unknown_size_ends_with_the_next():
    head = b"\x1a\x45\xdf\xa3\x80\x18\x53\x80\x67\x01\xff\xff\xff\xff\xff\xff\xff"
    cluster = b"\x1f\x43\xb6\x75\xff\xe7\x81\x07\xa3\x83abc"
    data = head + cluster * 3
    for size in (1, 5, 100):
        cuts = cut(MatroskaCutter(), data, size)
        assert [each.data for each in cuts] == [head, cluster, cluster, cluster]


@pytest.mark.parametrize("cutter", [Mp4Cutter, MatroskaCutter])
def test_what_is_no_film_is_said(cutter):
    with pytest.raises(BroadcastError):
        cut(cutter(), bytes(64), 8)


def test_a_segment_without_end_is_said():
    with pytest.raises(BroadcastError, match="no place to cut"):
        cut(LineCutter(), b"x" * (MAX_SIZE + 1), 1024 * 1024)


@given(st.binary(max_size=3000), st.sampled_from(sorted(CUTTERS)), st.integers(1, 700))
def test_nothing_is_lost(data, name, size):
    try:
        cuts = cut(CUTTERS[name](), data, size)
    except BroadcastError:
        assert name not in ("bytes", "lines")
        return
    assert b"".join(each.data for each in cuts) == data


def test_lines_and_time():
    assert [each.data for each in cut(LineCutter(), b"one\ntwo\nthree", 4)] == [b"one\n", b"two\n", b"three"]
    cutter = ByteCutter(2.0)
    assert cutter.tick(0) == []
    assert cutter.feed(b"a", 1.0) == []
    assert cutter.tick(2.9) == []
    (made,) = cutter.tick(3.0)
    assert (made.data, made.duration_ms) == (b"a", 2000)
    assert cutter.tick(9.0) == []
