"""Find the end of a JPEG without decoding it: https://www.w3.org/Graphics/JPEG/itu-t81.pdf, annex B."""

import re

MAX_SCANS = 100  # a scan passes over all pixels; encoders write about ten
END, SCAN, PROGRESSIVE = 0xD9, 0xDA, 0xC2
SEQUENTIAL = (0xC0, 0xC1)  # with Huffman codes
ALONE = {0x01, *range(0xD0, 0xD9)}
"""Markers without a segment."""
MARKER = re.compile(rb"\xff([^\x00\xff])")
AFTER_A_SCAN = re.compile(rb"\xff([^\x00\xff\xd0-\xd7])")
ONES = b"\xff\x00" * 10
"""80 bits that are not a valid JPEG code; the decoder reaches them only if image data is missing."""


def whole_jpeg(data: bytes) -> bytes:
    """Return the bytes of a JPEG to decode: without the end marker and everything after it.

    If image data is missing, libjpeg silently fills the rest with grey when it reaches the end marker. Without the
    marker it asks for more data, and Pillow reports a truncated file. An image of several scans needs the marker and is
    returned unchanged. Raises ValueError for more than 100 scans, and if scans are missing; an image that ends within
    the last of several scans is not detected.
    """
    kind, frame, scans, at, end = 0, b"", list[bytes](), 2, len(data)
    while found := (AFTER_A_SCAN if scans else MARKER).search(data, at):
        marker, at = found[1][0], found.end()
        if marker == END:
            end = found.start()
            break
        if marker in ALONE:
            continue
        length = max(2, int.from_bytes(data[at : at + 2]))
        segment, at = data[at + 2 : at + length], at + length
        if marker in (*SEQUENTIAL, PROGRESSIVE):
            kind, frame = marker, segment
        elif marker == SCAN:
            scans.append(segment)
            if len(scans) > MAX_SCANS:
                raise ValueError(f"a JPEG of more than {MAX_SCANS} scans")
    if kind in SEQUENTIAL and len(scans) == 1 and scans[0][:1] == frame[5:6]:
        return data[:end] + ONES
    if scans and _lacks_scans(frame, scans, progressive=kind == PROGRESSIVE):
        raise ValueError("image file is truncated: a JPEG that lacks scans")
    return data


def _lacks_scans(frame: bytes, scans: list[bytes], *, progressive: bool) -> bool:
    """Return whether any coefficient of any component is missing from the scans, or some of its bits are."""
    missing_bits = {component: [1] * 64 for component in frame[6::3]}  # of each of the 64 frequencies
    for scan in scans:
        components = scan[1 : 1 + 2 * scan[0] : 2] if scan else b""
        first, last, bits = scan[-3:] if progressive and len(scan) >= 3 else (0, 63, 0)
        for component in components:
            if component in missing_bits:
                missing_bits[component][first : last + 1] = [bits & 15] * (last + 1 - first)
    return any(map(any, missing_bits.values()))
