"""Inputs near valid ones: seeds of the corpus with a few edits."""

import struct
import zlib
from collections.abc import Sequence

from hypothesis import strategies as st

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
# fmt: off
INTERESTING = (
    b"\x00", b"\xff", b"\x7f", b"\x80", b"\xff" * 4, b"\x7f\xff\xff\xff", bytes(8), b"-1", b"1e999", b"9" * 40,
    b"null", b"[", b"]", b"{", b"}", b'"', b",", b":", b"%", b"@", b"#", b"\\", b"//", b"\r\n", b"\t", b"=", b"\\u0000",
    b"\\ud800", b"\xe2\x80\x8b", b"\xd9\xa1", b"\xc3\xa9", b"data:", b";base64,", b"127.0.0.1", b"[::1]",
    b"obj<<", b">>stream", b"endobj", b"IDAT", b"eXIf", b"iCCP", b"acTL", b"VP8X", b"\xff\xe1", b"\xff\xc2",
    b"\x21\xf9",
)
# fmt: on


@st.composite
def mutate(draw: st.DrawFn, seeds: Sequence[bytes], max_edits: int = 8) -> bytes:
    """Return a seed with up to `max_edits` edits; the checksums of a PNG may be right again."""
    data = bytearray(draw(st.sampled_from(seeds)))
    for _ in range(draw(st.integers(0, max_edits))):
        start = draw(st.integers(0, len(data)))
        end = min(len(data), start + draw(st.sampled_from([0, 1, 1, 2, 4, 16, 256])))
        match draw(st.sampled_from(["bytes", "word", "delete", "repeat", "flip", "splice", "cut"])):
            case "bytes":
                data[start:end] = draw(st.binary(min_size=1, max_size=8))
            case "word":
                data[start:end] = draw(st.sampled_from(INTERESTING))
            case "delete":
                del data[start:end]
            case "repeat":
                data[start:start] = data[start:end] * draw(st.sampled_from([1, 2, 8, 64]))
            case "flip" if start < len(data):
                data[start] ^= 1 << draw(st.integers(0, 7))
            case "splice":
                other = draw(st.sampled_from(seeds))
                cut = draw(st.integers(0, len(other)))
                data[start:] = other[cut:]
            case "cut":
                del data[start:]
    if data.startswith(PNG_SIGNATURE) and draw(st.booleans()):
        return mend_checksums(bytes(data))
    return bytes(data)


def mend_checksums(png: bytes) -> bytes:
    """Return a PNG with the checksums of its chunks put right, as far as its lengths make sense."""
    data, start = bytearray(png), len(PNG_SIGNATURE)
    while start + 12 <= len(data):
        end = start + 8 + int.from_bytes(data[start : start + 4], "big")
        if end + 4 > len(data):
            break
        data[end : end + 4] = struct.pack(">I", zlib.crc32(data[start + 4 : end]))
        start = end + 4
    return bytes(data)
