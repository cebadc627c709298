"""How a row of n logits is cut up for the kernels, and what they cannot do."""

import math
from dataclasses import dataclass
from functools import lru_cache

#: More classes or kept scores than this go the way of plain torch.
MOST_CLASSES = 1 << 17
MOST_KEPT = 128

# Below 16 slots a warp's lanes would be idle anyway; few sizes make few compiled kernels.
_LEAST_SLOTS = 16
# Scores in registers at once.
_TILE = 4096
# Chunks for each warp: with 8 keys in every lane, registers do not spill.
_CHUNKS_PER_WARP = 256
_MOST_WARPS = 16


@dataclass(frozen=True, kw_only=True)
class Tiling:
    """The constants of a kernel that reads rows; see `podium.topk.fused._selection.rank`.

    Attributes:
        constants: By their names in the kernels.
        warps: Warps per row.
    """

    constants: dict[str, int]
    warps: int


@lru_cache(maxsize=64)
def tiling(n: int, m: int, row_stride: int) -> Tiling | None:
    """Return how to read rows of n scores, the starts of which are `row_stride` apart; None if they are too long."""
    if n > MOST_CLASSES or m > MOST_KEPT:
        return None
    slots = max(_LEAST_SLOTS, power_of_two(m))
    # C chunks are searched for M of them, then M chunks of n / C scores: the two are equal at the root of M n.
    chunks = max(slots, power_of_two(math.isqrt(slots * n)))
    per_chunk = power_of_two(-(-n // chunks))
    constants = {
        "M": slots,
        "C": chunks,
        "R": per_chunk,
        "TILE": min(per_chunk, max(1, _TILE // chunks)),
        "ALIGN": alignment(n, row_stride),
    }
    return Tiling(constants=constants, warps=min(_MOST_WARPS, max(1, chunks // _CHUNKS_PER_WARP)))


def power_of_two(number: int) -> int:
    """Return the smallest power of two that is at least `number`."""
    return 1 << max(0, number - 1).bit_length()


def alignment(n: int, row_stride: int) -> int:
    """Return how many elements can be read or written at once wherever a row starts."""
    return math.gcd(n, row_stride, 16)
