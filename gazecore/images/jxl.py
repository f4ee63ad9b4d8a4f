"""JPEG XL: the pixels' stream without its boxes, and the size in it, before anything is decoded.

Pillow's plugin decodes an image as it opens it, and unpacks boxes of metadata without a bound.
Source: ISO/IEC 18181-1, annex D (headers), and 18181-2 (boxes).
"""

import struct

SIGNATURE = b"\xff\x0a"
BOXES = b"\0\0\0\x0cJXL \r\n\x87\n"

_RATIOS = {1: (1, 1), 2: (12, 10), 3: (4, 3), 4: (3, 2), 5: (16, 9), 6: (5, 4), 7: (2, 1)}
_WIDTHS = (9, 13, 18, 30)


def codestream(data: bytes) -> bytes:
    """The stream of a file; of a file without boxes, all of it."""
    if not data.startswith(BOXES):
        return data
    pieces, position = [], len(BOXES)
    while position + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, position)
        start = position + 8
        if length == 1:
            (length,) = struct.unpack_from(">Q", data, start)
            start += 8
        end = len(data) if length == 0 else position + length
        if end < start:
            break
        if kind in (b"jxlc", b"jxlp"):  # a part begins with its number
            pieces.append(data[start + 4 * (kind == b"jxlp") : end])
        position = end
    return b"".join(pieces)


def size(stream: bytes) -> tuple[int, int]:
    """Width and height of a stream. Raises IndexError where it is cut."""
    if len(stream) < 12:
        raise IndexError("the stream is cut")
    bits = int.from_bytes(stream[2:12], "little")

    def take(count: int) -> int:
        nonlocal bits
        value = bits & (1 << count) - 1
        bits >>= count
        return value

    is_small = take(1)

    def side() -> int:
        return (take(5) + 1) * 8 if is_small else take(_WIDTHS[take(2)]) + 1

    height = side()
    ratio = _RATIOS.get(take(3))
    return (height * ratio[0] // ratio[1] if ratio else side()), height
