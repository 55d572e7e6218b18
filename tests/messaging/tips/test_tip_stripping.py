"""Files of tips are drawn anew: nothing is left of what they say of their maker, and bombs don't go off."""

from __future__ import annotations

import asyncio
import struct
import zlib
from pathlib import Path

import pypdfium2
import pytest
from PIL import Image, PngImagePlugin

from dtp.messaging.tips import strip_process
from dtp.messaging.tips.errors import MetadataKept, TipError
from dtp.messaging.tips.stripping import MAX_PAGES, MAX_PIXELS, strip_file

SECRET = b"THE-MAKER-OF-THIS"


@pytest.fixture
def out(tmp_path: Path) -> Path:
    (tmp_path / "out").mkdir()
    return tmp_path / "out"


def strip_files(paths: list[Path], folder: Path) -> list[Path]:
    return [strip_file(path, folder, f"file-{number}") for number, path in enumerate(paths, 1)]


def strip_apart(paths: list[Path], folder: Path, **bounds: int) -> list[Path]:
    return asyncio.run(strip_process.strip_files(paths, folder, **bounds))


def noise(size: tuple[int, int] = (60, 40)) -> Image.Image:
    return Image.effect_noise(size, 60).convert("RGB")


def exif() -> Image.Exif:
    made = Image.Exif()
    made[0x010F] = SECRET.decode()
    made[0x0112] = 6  # it lies on its side
    return made


def pages(path: Path) -> tuple[int, dict[str, str]]:
    """Return how many pages a document has, and what it says of itself."""
    document = pypdfium2.PdfDocument(path)
    try:
        return len(document), {name: said for name, said in document.get_metadata_dict().items() if said}
    finally:
        document.close()


def marked(folder: Path, kind: str) -> Path:
    """Return a file that says who has made it, in the places that its form has for that."""
    path = folder / f"{SECRET.decode()}.{kind}"
    match kind:
        case "png":
            texts = PngImagePlugin.PngInfo()
            texts.add_text("Author", SECRET.decode())
            noise().save(path, pnginfo=texts, exif=exif(), icc_profile=SECRET * 50)
        case "pdf":
            noise().save(path, author=SECRET.decode(), title=SECRET.decode(), creator=SECRET.decode())
        case "txt":
            path.write_bytes(b"\xef\xbb\xbfone\r\ntwo\r\n")
        case _:
            noise().save(path, exif=exif(), icc_profile=SECRET * 50, xmp=SECRET * 2, comment=SECRET)
    if kind == "pdf":
        assert pages(path)[1]["Author"] == SECRET.decode()
    elif kind != "txt":
        assert SECRET in path.read_bytes()
    with path.open("ab") as file:  # behind its end, where viewers don't look
        file.write(b"" if kind == "txt" else SECRET)
    return path


@pytest.mark.parametrize("kind", ["jpg", "jpeg", "png", "webp", "pdf", "txt"])
def test_what_a_file_says_of_its_maker_is_gone_and_so_is_its_name(tmp_path: Path, out: Path, kind: str):
    (made,) = strip_files([marked(tmp_path, kind)], out)
    assert made == out / f"file-1.{kind}"
    data = made.read_bytes()
    assert SECRET not in data
    match kind:
        case "txt":
            assert data == b"one\ntwo\n"
        case "pdf":
            assert pages(made) == (1, {})
            assert SECRET.decode().encode("utf-16-be") not in data
        case _:
            with Image.open(made) as found:
                assert found.size == (40, 60)  # turned as it is looked at
                assert not found.getexif()
                assert not {*found.info} & {"exif", "icc_profile", "xmp", "comment", "Author"}


def test_a_picture_looks_the_same_where_its_form_loses_nothing(tmp_path: Path, out: Path):
    shown = noise().convert("RGBA")
    shown.putalpha(100)
    shown.save(tmp_path / "a.png")
    noise().convert("P").save(tmp_path / "b.png")
    noise().convert("L").save(tmp_path / "c.webp", lossless=True)
    made = strip_files([tmp_path / "a.png", tmp_path / "b.png", tmp_path / "c.webp"], out)
    for before, after in zip(("a.png", "b.png", "c.webp"), made, strict=True):
        with Image.open(tmp_path / before) as one, Image.open(after) as other:
            assert one.convert("RGBA").tobytes() == other.convert("RGBA").tobytes()


def test_the_same_document_is_the_same_file_whenever_it_is_drawn(tmp_path: Path, out: Path):
    path = tmp_path / "two pages.pdf"
    noise().save(path, save_all=True, append_images=[noise((80, 50))])
    (first,) = strip_files([path], out)
    before = first.read_bytes()
    (second,) = strip_files([path], out)
    assert second.read_bytes() == before
    assert pages(first) == (2, {})


def test_files_that_cannot_be_stripped_are_refused_by_name(tmp_path: Path, out: Path):
    moving = [noise(), noise()]
    moving[0].save(tmp_path / "moving.webp", save_all=True, append_images=moving[1:])
    for name, data in (
        ("letter.docx", b"PK\x03\x04"),
        ("noise.jpg", b"no picture"),
        ("noise.pdf", b"no document"),
        ("binary.txt", b"\xff\xfe\x00"),
        ("zero.txt", b"a\0b"),
        ("gif.png", b"GIF89a" + bytes(20)),
    ):
        (tmp_path / name).write_bytes(data)
    for path in sorted(tmp_path.glob("*.*")):
        with pytest.raises(MetadataKept, match=path.name):
            strip_files([path], out)
    with pytest.raises(TipError, match="can't be read"):
        strip_files([tmp_path / "missing.png"], out)
    assert [*out.iterdir()] == []


def test_bombs_do_not_go_off(tmp_path: Path, out: Path):
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    size = 200_000  # 40,000,000,000 pixels in some bytes
    head = struct.pack(">IIBBBBB", size, size, 8, 0, 0, 0, 0)
    bomb = tmp_path / "bomb.png"
    bomb.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(bytes(1000))))
    vast = tmp_path / "vast.pdf"
    noise().save(vast, resolution=0.1)
    long = tmp_path / "long.pdf"
    Image.new("L", (1, 1)).save(long, save_all=True, append_images=[Image.new("L", (1, 1))] * MAX_PAGES)
    assert size * size > MAX_PIXELS
    for path in (bomb, vast, long):
        with pytest.raises(MetadataKept):
            strip_files([path], out)
    huge = tmp_path / "huge.txt"
    with huge.open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(MetadataKept):
        strip_files([huge], out)


MIB = 1024**2


def unpacking_to(size: int) -> bytes:
    """Return a document whose one page says nothing in so many MiB."""
    packer = zlib.compressobj()
    first = packer.compress(b" " * MIB) + packer.flush(zlib.Z_FULL_FLUSH)
    again = packer.compress(b" " * MIB) + packer.flush(zlib.Z_FULL_FLUSH)  # the same each time
    packed = first + (size - 1) * again + packer.flush()
    page = b"/Type /Page /Parent 2 0 R /MediaBox [0 0 72 72] /Contents 4 0 R"
    parts = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        b"<< %b >>" % page,
    ]
    parts.append(b"<< /Filter /FlateDecode /Length %d >>\nstream\n%b\nendstream" % (len(packed), packed))
    objects = b"".join(b"%d 0 obj\n%b\nendobj\n" % each for each in enumerate(parts, 1))
    return b"%PDF-1.4\n" + objects + b"trailer\n<< /Root 1 0 R /Size 5 >>\n"


def test_what_a_document_unpacks_to_is_bounded(tmp_path: Path, out: Path) -> None:
    """Some 2 MB took whoever sent it 5.5 GiB."""
    small, large = tmp_path / "small.pdf", tmp_path / "large.pdf"
    small.write_bytes(unpacking_to(1))
    large.write_bytes(unpacking_to(500))
    assert large.stat().st_size < 4 * MIB
    assert strip_apart([small], out) == [out / "file-1.pdf"]
    with pytest.raises(MetadataKept, match=r"large\.pdf can't be drawn: it takes more than 500 MiB"):
        strip_apart([small, large], out, memory=500 * MIB)


@pytest.mark.slow
def test_the_time_that_files_take_is_bounded(tmp_path: Path, out: Path) -> None:
    point = Image.new("L", (1, 1))
    long = tmp_path / "long.pdf"
    point.save(long, resolution=0.1, save_all=True, append_images=(MAX_PAGES - 1) * [point])
    with pytest.raises(MetadataKept, match=r"long\.pdf can't be drawn: it takes more than 1 s"):
        strip_apart([long], out, seconds=1)


def test_files_drawn_apart_are_those_drawn_here_and_faults_have_their_names(
    tmp_path: Path, out: Path
) -> None:
    paths = [marked(tmp_path, kind) for kind in ("png", "txt")]
    here = [each.read_bytes() for each in strip_files(paths, out)]
    assert [each.read_bytes() for each in strip_apart(paths, out)] == here
    letter = tmp_path / "letter.docx"
    letter.write_bytes(b"PK")
    with pytest.raises(TipError, match=r"missing\.png can't be read"):
        strip_apart([*paths, tmp_path / "missing.png"], out)
    with pytest.raises(MetadataKept, match=r"letter\.docx"):
        strip_apart([letter], out)


HIDDEN, SHOWN = (200, 30, 40), (10, 120, 60)


def half_hidden(mode: str) -> tuple[Image.Image, dict[str, object]]:
    """Return a picture whose left half was erased, and what it is saved with: the colours are still there."""
    drawn = Image.new("RGB", (20, 10), SHOWN)
    drawn.paste(HIDDEN, (0, 0, 10, 10))
    if mode == "RGB":
        return drawn, {"transparency": HIDDEN}
    if mode == "P":
        flat = drawn.convert("P", palette=Image.Palette.ADAPTIVE, colors=2)
        return flat, {"transparency": flat.getpixel((0, 0))}
    if mode == "L":
        grey = drawn.convert("L")
        return grey, {"transparency": grey.getpixel((0, 0))}
    alpha = Image.new("L", drawn.size, 255)
    alpha.paste(0, (0, 0, 10, 10))
    made = drawn.convert("LA" if mode == "LA" else "RGBA")
    made.putalpha(alpha)
    return made, {}


@pytest.mark.parametrize("kind", ["png", "webp", "jpg"])
@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "RGB", "L"])
def test_what_was_erased_from_a_picture_is_not_under_what_shows_through(
    tmp_path: Path, out: Path, mode: str, kind: str
):
    made, options = half_hidden(mode)
    path = tmp_path / f"erased.{kind}"
    made.save(path, format="PNG", **options)
    with Image.open(path) as before:
        assert before.convert("RGBA").getpixel((2, 2))[3] == 0  # type: ignore[index]
        shown = before.convert("RGBA").getpixel((15, 5))
    (file,) = strip_files([path], out)
    with Image.open(file) as after:
        erased, left = after.convert("RGBA").getpixel((2, 2)), after.convert("RGBA").getpixel((15, 5))
    nothing = (255, 255, 255, 255) if kind == "jpg" else (0, 0, 0, 0)
    for found, wanted, away in ((erased, nothing, 3 if kind == "jpg" else 1), (left, shown, 8)):
        assert max(abs(one - other) for one, other in zip(found, wanted, strict=True)) < away  # type: ignore[arg-type]


def test_pictures_of_sixteen_bits_look_as_before(tmp_path: Path, out: Path):
    deep = Image.new("I;16", (8, 8), 40_000)
    deep.save(tmp_path / "deep.png")
    (made,) = strip_files([tmp_path / "deep.png"], out)
    with Image.open(made) as found:
        assert found.convert("L").getpixel((3, 3)) == pytest.approx(40_000 / 257, abs=1)
