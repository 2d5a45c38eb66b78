"""What a browser has drawn."""

import struct
import zlib


def picture(path):
    """Width, height and how many different bytes a PNG (RFC 2083) has in its lines."""
    data = path.read_bytes()
    if data[:8] != b"\x89PNG\r\n\x1a\n":
        raise ValueError(f"{path} is no picture")
    width, height = struct.unpack(">II", data[16:24])
    at, packed = 8, b""
    while at < len(data):
        size, kind = struct.unpack(">I4s", data[at:at + 8])
        if kind == b"IDAT":
            packed += data[at + 8:at + 8 + size]
        at += 12 + size
    return width, height, len(set(zlib.decompress(packed)))
