"""Read the size of a WebP image from its header (RFC 9649): Pillow allocates all pixels when it opens the file."""

HEADER = 30  # bytes


def webp_size(header: bytes) -> tuple[int, int] | None:
    """Return width and height from the first 30 bytes of a file, or None if it is not a WebP."""
    if header[:4] != b"RIFF" or header[8:12] != b"WEBP" or len(header) < HEADER:
        return None
    kind = header[12:16]
    if kind == b"VP8X":  # 24 bits each, minus one
        return 1 + int.from_bytes(header[24:27], "little"), 1 + int.from_bytes(header[27:30], "little")
    if kind == b"VP8L":  # 14 bits each, minus one
        bits = int.from_bytes(header[21:25], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    if kind == b"VP8 ":  # 14 bits each
        return tuple(int.from_bytes(header[at : at + 2], "little") & 0x3FFF for at in (26, 28))  # type: ignore[return-value]
    return None
