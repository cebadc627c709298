"""Columns of varints, as protobuf packs whole numbers, into arrays."""

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

#: Of the narrower kind where they all fit, as they nearly always do: half of the memory.
Steps: TypeAlias = NDArray[np.unsignedinteger[Any]]
#: Bytes of a number.
_LONGEST = 10


def decoded(data: bytes) -> Steps:
    """The numbers of a column of varints."""
    octets = np.frombuffer(data, np.uint8)
    length = int((octets[:_LONGEST] >= 0x80).argmin()) + 1 if len(octets) else 1
    if len(octets) % length == 0 and length <= 8:  # as nearly always, since neighbours are of one length
        words = _words(data, length)
        marks = words.dtype.type(0x8080808080808080 & (1 << 8 * length) - 1)
        if bool((words & marks == marks >> 8).all()):
            return _numbers(words, length)
    ends = np.flatnonzero(octets < 0x80)
    lengths = np.diff(ends, prepend=-1)
    numbers: Steps = np.empty(len(ends), np.uint32 if lengths.max(initial=0) <= 4 else np.uint64)
    for length in np.flatnonzero(np.bincount(lengths)).tolist():
        alike = lengths == length
        table = octets[ends[alike, None] - np.arange(length - 1, -1, -1)]
        numbers[alike] = _numbers(_words(table[:, :8].tobytes(), min(length, 8)), min(length, 8))
        for place in range(8, length):
            numbers[alike] |= (table[:, place] & 0x7F).astype(np.uint64) << 7 * place
    return numbers


def _words(data: bytes, length: int) -> Steps:
    """Varints of so many bytes each, 8 at the most, as words of the machine that begin with them."""
    kind: type[np.unsignedinteger[Any]] = np.uint32 if length <= 4 else np.uint64
    # The last one is followed by nothing that it could end with.
    return np.ndarray(len(data) // length, kind, data + bytes(8), 0, (length,)).copy()


def _numbers(words: Steps, length: int) -> Steps:
    """Seven bits of each byte, the lowest first."""
    numbers: Steps = np.bitwise_and(words, 0x7F)
    for place in range(1, length):
        numbers |= np.bitwise_and(words >> place, 0x7F << 7 * place)
    return numbers
