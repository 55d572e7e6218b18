"""Remove metadata from files: pictures and pages are redrawn, by Pillow and PDFium.

Only what one sees is kept of a file: no camera, place, author, date, editing history or embedded file. What
one sees may still give the maker away, and so may how a picture was scaled. Files of other kinds are refused,
unless they are sent as they are.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from dtp.messaging.tips.errors import MetadataKept, TipError

if TYPE_CHECKING:
    from PIL.Image import Image

#: The most pixels of a picture or page: a small file can claim a million times as many.
MAX_PIXELS: Final = 100_000_000
#: The most pages of a document.
MAX_PAGES: Final = 300
#: The most bytes of a file.
MAX_BYTES: Final = 256 * 1024 * 1024
#: Dots per inch of a page that is drawn, and the quality of JPEG.
_DOTS: Final = 150
_QUALITY: Final = 90
_POINTS: Final = 72
#: Without these Pillow writes when a document was made, and by what.
_NOTHING_SAID: Final[dict[str, Any]] = {
    "title": "", "producer": "", "creator": "", "creationDate": None, "modDate": None
}  # fmt: skip
#: The endings of names, and how a file with each is redrawn; text is kept as it is.
_PICTURES: Final = {".jpg": "JPEG", ".jpeg": "JPEG", ".png": "PNG", ".webp": "WEBP"}
_TEXTS: Final = frozenset({".txt", ".md", ".csv"})
#: The mode in which a picture of each mode is redrawn: colours alone, or colours with transparency.
_MODES: Final = {"L": "L", "1": "L", "RGB": "RGB", "RGBA": "RGBA", "LA": "RGBA", "PA": "RGBA", "P": "RGBA"}


def strip_file(path: Path, folder: Path, name: str) -> Path:
    """Write a copy of a file that keeps only what one sees to `folder`, as `name` with the file's own ending.
    Return its path.

    Raise `MetadataKept` if the file can't be stripped, `TipError` if it can't be read. A file may be made to
    take any amount of memory: `strip_process` bounds that.
    """
    kind = path.suffix.lower()
    try:
        if path.stat().st_size > MAX_BYTES:
            raise MetadataKept(f"{path.name} has more than {MAX_BYTES} bytes: metadata is taken out of less")
        if kind in _TEXTS:
            return _copy_text(path, folder / f"{name}{kind}")
        if kind in _PICTURES:
            return _draw_picture(path, folder / f"{name}{kind}", _PICTURES[kind])
        if kind == ".pdf":
            return _draw_pages(path, folder / f"{name}.pdf")
    except OSError as fault:
        raise TipError(f"{path.name} can't be read: {fault.strerror or fault}") from fault
    known = ", ".join(sorted({*_PICTURES, *_TEXTS, ".pdf"}))
    raise MetadataKept(
        f"what {path.name} says of its maker can't be taken out: that is done for {known}. Send it as one of these, "
        "or as it is (--as-is)"
    )


def _copy_text(path: Path, target: Path) -> Path:
    data = path.read_bytes()
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise MetadataKept(f"{path.name} isn't text, whatever its name says") from None
    if "\0" in text:
        raise MetadataKept(f"{path.name} isn't text, whatever its name says")
    target.write_bytes("\n".join(text.splitlines()).encode() + b"\n")  # line endings tell systems apart
    return target


def _draw_picture(path: Path, target: Path, form: str) -> Path:
    image, ops = _pillow()
    with ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")  # Pillow's warning about large pictures: their size is checked here
        try:
            found = stack.enter_context(image.open(path, formats=tuple({*_PICTURES.values()})))
            if getattr(found, "n_frames", 1) > 1:
                raise MetadataKept(f"{path.name} has several pictures: send them one by one")
            _check_size(path, found.size)
            found.load()
        except (OSError, ValueError, SyntaxError, image.DecompressionBombError) as fault:  # as Pillow has it
            raise MetadataKept(f"{path.name} can't be drawn: {fault}") from None
        _save(_redraw(image, ops.exif_transpose(found), form), target, form)
    return target


def _redraw(image: Any, found: Image, form: str) -> Image:
    """Return a picture with the same pixels and nothing else: no profile, text or palette, and no colours in
    transparent places, where editors leave what was erased."""
    if found.mode.startswith("I;16"):
        found = found.convert("I").point(lambda value: value * (1 / 257)).convert("L")
    plain = found.convert("RGBA" if "transparency" in found.info else _MODES.get(found.mode, "RGB"))
    if plain.mode == "RGBA":
        seen = plain.getchannel("A").point(lambda alpha: 255 if alpha else 0)
        plain = image.composite(plain, image.new("RGBA", plain.size), seen)
    if form == "JPEG" and plain.mode == "RGBA":
        plain = image.alpha_composite(image.new("RGBA", plain.size, "white"), plain).convert("RGB")
    made: Image = image.new(plain.mode, plain.size)
    made.paste(plain)
    return made


def _save(made: Image, target: Path, form: str) -> None:
    options: dict[str, Any] = {"lossless": True} if form == "WEBP" else {}
    if form == "JPEG":
        options = {"quality": _QUALITY}
    made.save(target, format=form, **options)


def _draw_pages(path: Path, target: Path) -> Path:
    image, _ = _pillow()
    try:
        import pypdfium2
    except ImportError:
        raise _missing() from None
    try:
        document = pypdfium2.PdfDocument(path)
    except pypdfium2.PdfiumError as fault:
        raise MetadataKept(f"{path.name} can't be drawn: {fault}") from None
    try:
        if not 0 < len(document) <= MAX_PAGES:
            raise MetadataKept(f"{path.name} has {len(document)} pages: 1 to {MAX_PAGES} are drawn")
        for number in range(len(document)):  # one page at a time is in memory
            drawn = _draw_page(image, path, document[number])
            drawn.save(
                *(target, "PDF"), append=number > 0, resolution=_DOTS, quality=_QUALITY, **_NOTHING_SAID
            )
    except pypdfium2.PdfiumError as fault:
        raise MetadataKept(f"{path.name} can't be drawn: {fault}") from None
    finally:
        document.close()
    return target


def _draw_page(image: Any, path: Path, page: Any) -> Image:
    scale = _DOTS / _POINTS
    _check_size(path, [round(each * scale) for each in page.get_size()])
    drawn = page.render(scale=scale).to_pil()
    page.close()
    return _redraw(image, drawn, "JPEG")


def _check_size(path: Path, size: Sequence[int]) -> None:
    if size[0] * size[1] > MAX_PIXELS:
        raise MetadataKept(f"{path.name} has {size[0] * size[1]} pixels: {MAX_PIXELS} are drawn at most")


def _pillow() -> tuple[Any, Any]:
    try:
        from PIL import Image, ImageOps
    except ImportError:
        raise _missing() from None
    return Image, ImageOps


def _missing() -> TipError:
    return TipError("taking metadata out needs two libraries: pip install 'dtp-sockets[tips]'")
