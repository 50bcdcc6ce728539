"""Small image files of every format and mode that scoring takes, and what Pillow cannot write, built by hand."""

import io
import struct
import zlib
from collections.abc import Iterator

import numpy as np
from PIL import Image, ImageCms

SIZE = (48, 40)
ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))  # x, y, steps


def noise(mode: str = "RGB", size: tuple[int, int] = SIZE) -> Image.Image:
    """Soft blocks and noise, the same every time."""
    rng = np.random.default_rng(0)
    blocks = rng.integers(40, 200, (size[1] // 8 + 1, size[0] // 8 + 1, 4)).repeat(8, 0).repeat(8, 1)[: size[1], : size[0]]
    pixels = (blocks + rng.integers(0, 40, blocks.shape)).astype(np.uint8)
    return Image.fromarray(pixels, "RGBA") if mode == "RGBA" else Image.fromarray(pixels[..., :3]).convert(mode)


def deep() -> Image.Image:
    """16-bit grey."""
    return Image.fromarray(np.random.default_rng(0).integers(0, 65536, SIZE[::-1]).astype(np.uint16))


def content(picture: Image.Image, form: str, **options) -> bytes:
    """The picture as a file."""
    file = io.BytesIO()
    picture.save(file, form, **options)
    return file.getvalue()


def exif(orientation: int = 6) -> Image.Exif:
    found = Image.Exif()
    found[0x0112], found[0x010F], found[0x0110] = orientation, "a maker", "a model"
    found.get_ifd(0x8769)[0x9286] = b"ASCII\0\0\0a comment"
    return found


def profile() -> bytes:
    """A colour profile that is not sRGB: XYZ, under which the same numbers are other colours."""
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("XYZ")).tobytes()


def chunk(kind: bytes, data: bytes) -> bytes:
    """Of a PNG."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(size: tuple[int, int], depth: int, colour: int, raw: bytes, *more: bytes, interlaced: bool = False) -> bytes:
    """A PNG from its filtered rows. colour: 0 grey, 2 RGB; more: chunks before the pixels."""
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", *size, depth, colour, 0, 0, interlaced))
    return b"\x89PNG\r\n\x1a\n" + head + b"".join(more) + chunk(b"IDAT", zlib.compress(raw)) + chunk(b"IEND", b"")


def rows(pixels: np.ndarray) -> bytes:
    """Rows of a PNG without a filter."""
    return b"".join(b"\0" + row.tobytes() for row in pixels)


def interlaced_png() -> bytes:
    grey = np.asarray(noise("L"))
    passes = [rows(grey[y::dy, x::dx]) for x, y, dx, dy in ADAM7]
    return png(SIZE, 8, 0, b"".join(passes), interlaced=True)


def deep_png() -> bytes:
    """RGB with 16 bits."""
    rgb = np.random.default_rng(0).integers(0, 65536, (*SIZE[::-1], 3)).astype(">u2")
    return png(SIZE, 16, 2, rows(rgb.reshape(SIZE[1], -1)))


def tiff(tags: dict[int, tuple[int, list[int]]], blocks: list[bytes], offsets: int) -> bytes:
    """A little-endian TIFF. tags: number -> (type 3 of two bytes or 4 of four, values); offsets: the tag that points at the
    blocks."""
    places, at = [], 8
    for block in blocks:
        places.append(at)
        at += len(block)
    tags = dict(sorted((tags | {offsets: (4, places)}).items()))
    extra, body = at + 2 + 12 * len(tags) + 4, b""
    entries = struct.pack("<H", len(tags))
    for number, (kind, values) in tags.items():
        value = struct.pack(f"<{len(values)}{'H' if kind == 3 else 'I'}", *values)
        if len(value) > 4:
            value, body = struct.pack("<I", extra + len(body)), body + value
        entries += struct.pack("<HHI4s", number, kind, len(values), value.ljust(4, b"\0"))
    return struct.pack("<2sHI", b"II", 42, at) + b"".join(blocks) + entries + bytes(4) + body


def tiled_tiff() -> bytes:
    """RGB in deflated tiles of 16 px."""
    pixels, (w, h) = np.asarray(noise()), SIZE
    padded = np.zeros((-h % 16 + h, -w % 16 + w, 3), np.uint8)
    padded[:h, :w] = pixels
    tiles = [padded[y : y + 16, x : x + 16] for y in range(0, h, 16) for x in range(0, w, 16)]
    blocks = [zlib.compress(tile.tobytes()) for tile in tiles]
    tags = {256: (3, [w]), 257: (3, [h]), 258: (3, [8, 8, 8]), 259: (3, [8]), 262: (3, [2]), 277: (3, [3]), 284: (3, [1])}
    return tiff(tags | {322: (3, [16]), 323: (3, [16]), 325: (4, [len(b) for b in blocks])}, blocks, 324)


def rle_bmp() -> bytes:
    """Grey, run-length encoded."""
    grey, (w, h) = np.asarray(noise("L")), SIZE
    body = b"".join(b"".join(bytes((1, v)) for v in row) + b"\0\0" for row in grey[::-1]) + b"\0\1"
    palette = b"".join(bytes((v, v, v, 0)) for v in range(256))
    info = struct.pack("<IiiHHIIiiII", 40, w, h, 1, 8, 1, len(body), 0, 0, 256, 0)
    start = 14 + len(info) + len(palette)
    return struct.pack("<2sIHHI", b"BM", start + len(body), 0, 0, start) + info + palette + body


def corpus() -> Iterator[tuple[str, str, bytes]]:
    """(what it is, suffix, content) of whole files, each of which is decoded."""
    rgb, moving = noise(), {"save_all": True, "append_images": [noise("L").convert("RGB")], "duration": 40}
    icc, info = profile(), exif()
    for what, mode, options in (
        ("rgb", "RGB", {}),
        ("progressive", "RGB", {"progressive": True}),
        ("restarts", "RGB", {"restart_marker_blocks": 2}),
        ("grey", "L", {}),
        ("cmyk", "CMYK", {}),
        ("exif", "RGB", {"exif": info}),
        ("icc", "RGB", {"icc_profile": icc}),
    ):
        yield f"jpeg_{what}", ".jpg", content(noise(mode), "JPEG", **options)
    yield "jpeg_two", ".jpeg", content(rgb, "MPO", save_all=True, append_images=[noise("L").convert("RGB")])
    for mode in ("RGB", "RGBA", "L", "LA", "P", "1"):
        yield f"png_{mode}", ".png", content(noise(mode if mode != "LA" else "L").convert(mode), "PNG")
    yield "png_16", ".png", content(deep(), "PNG")
    yield "png_rgb16", ".png", deep_png()
    yield "png_interlaced", ".png", interlaced_png()
    yield "png_moving", ".png", content(rgb, "PNG", **moving)
    yield "png_clear", ".png", content(noise("P"), "PNG", transparency=bytes(range(256)))
    yield "png_all", ".png", content(rgb, "PNG", exif=info, icc_profile=icc)
    for what, options in (
        ("lossy", {}),
        ("lossless", {"lossless": True}),
        ("moving", moving),
        ("exif", {"exif": info, "icc_profile": icc}),
    ):
        yield f"webp_{what}", ".webp", content(rgb, "WEBP", **options)
    yield "webp_alpha", ".webp", content(noise("RGBA"), "WEBP")
    for mode in ("RGB", "RGBA", "L", "P", "1"):
        yield f"bmp_{mode}", ".bmp", content(noise(mode), "BMP")
    yield "bmp_rle", ".bmp", rle_bmp()
    for mode in ("RGB", "RGBA", "L", "P", "1", "CMYK"):
        yield f"tiff_{mode}", ".tif", content(noise(mode), "TIFF")
    for packed in ("tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg", "group4"):
        yield f"tiff_{packed}", ".tiff", content(noise("1" if packed == "group4" else "RGB"), "TIFF", compression=packed)
    yield "tiff_16", ".tif", content(deep(), "TIFF")
    yield "tiff_tiled", ".tif", tiled_tiff()
    yield "tiff_pages", ".tif", content(rgb, "TIFF", save_all=True, append_images=[noise("L")])
    yield "tiff_big", ".tif", content(rgb, "TIFF", big_tiff=True)
    yield "tiff_all", ".tif", content(rgb, "TIFF", exif=info, icc_profile=icc)
    yield "gif", ".gif", content(noise("P"), "GIF")
    yield "gif_clear", ".gif", content(noise("P"), "GIF", transparency=3)
    yield "gif_moving", ".gif", content(rgb, "GIF", **moving)


def with_size(data: bytes, w: int, h: int) -> bytes:
    """The file with another width and height in its header, as far as they fit there; its pixels stay."""
    found = bytearray(data)
    if data[:4] == b"\x89PNG":
        found[16:24] = struct.pack(">II", w, h)
        found[29:33] = struct.pack(">I", zlib.crc32(found[12:29]))
    elif data[:2] == b"\xff\xd8":
        at = next((i for i in range(2, len(data) - 9) if data[i] == 0xFF and data[i + 1] in (0xC0, 0xC1, 0xC2)), 0)
        if at:
            found[at + 5 : at + 9] = struct.pack(">HH", min(h, 65535), min(w, 65535))
    elif data[:3] == b"GIF":
        found[6:10] = frame = struct.pack("<HH", min(w, 65535), min(h, 65535))
        if (at := data.find(b",\0\0\0\0", 13)) > 0:
            found[at + 5 : at + 9] = frame
    elif data[:2] == b"BM":
        found[18:26] = struct.pack("<II", w, h)
    elif data[12:16] == b"VP8X":
        found[24:30] = struct.pack("<I", w - 1 & 0xFFFFFF)[:3] + struct.pack("<I", h - 1 & 0xFFFFFF)[:3]
    elif data[12:16] == b"VP8 ":
        found[26:30] = struct.pack("<HH", min(w, 16383), min(h, 16383))
    elif data[12:16] == b"VP8L":
        found[21:25] = struct.pack("<I", min(w, 16384) - 1 & 0x3FFF | (min(h, 16384) - 1 & 0x3FFF) << 14)
    elif data[:4] == b"II*\0":
        (at,) = struct.unpack_from("<I", data, 4)
        for entry in range(at + 2, min(len(data) - 12, at + 2 + 12 * 40), 12):
            number = struct.unpack_from("<H", data, entry)[0]
            if number in (256, 257):
                found[entry + 2 : entry + 12] = struct.pack("<HII", 4, 1, w if number == 256 else h)
    return bytes(found)
