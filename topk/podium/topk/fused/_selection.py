"""The label and its strongest rivals out of one row of logits, in registers.

The scores are dealt into C chunks, score j into chunk j mod C. The m largest lie in the m chunks with the largest
maxima, so one pass over the row keeps a maximum per chunk, and only M of C chunks are read again, from the cache.
A sort moves int64 keys, value above index, so that no index has to be carried beside; NaN is the largest of all
values and the label larger still.

Shape legend: C chunks, R scores per chunk, M kept scores, all powers of two; of the M slots the first m count.
"""

from typing import NamedTuple

import triton.language as tl

from podium.topk.fused._triton import device

# Triton functions see globals only as constants.
_LOWEST = tl.constexpr(-0x80000000)
_NAN = tl.constexpr(0x7FFFFFFE)
_HIGHEST = tl.constexpr(0x7FFFFFFF)
_HIGHEST_KEY = tl.constexpr(0x7FFFFFFFFFFFFFFF)
_INDEX_BITS = tl.constexpr(32)
_MASKED_GAP = tl.constexpr(100.0)


class Ranked(NamedTuple):
    """The kept scores of one row; see `podium.topk._selection.Ranked`.

    Attributes:
        scores: Label first, then rivals by falling score, (M,) float32; anything in the slots that do not count.
        classes: The class of each, (M,) int32.
        ruled_out: Whether a score stands for a logit of -inf, (M,).
        above: How many rivals are above the label, one that ties counting half.
        broken: Whether there is no answer: a kept score is NaN or +inf, or the label is no class.
    """

    scores: tl.tensor
    classes: tl.tensor
    ruled_out: tl.tensor
    above: tl.tensor
    broken: tl.tensor


@device
def rank(
    logits: tl.tensor,
    label: tl.tensor,
    n: tl.tensor,
    m: tl.tensor,
    M: tl.constexpr,
    C: tl.constexpr,
    R: tl.constexpr,
    TILE: tl.constexpr,
) -> Ranked:
    """Keep the label and its m - 1 strongest rivals.

    Args:
        logits: Pointer to a row.
        label: Its label.
        n: Length of the row.
        m: How many scores to keep.
        M: Slots, at least m.
        C: Chunks.
        R: Scores per chunk; 1 if the whole row is sorted at once.
        TILE: How many scores of each chunk are loaded at once.
    """
    unknown = (label < 0) | (label >= n)
    label = tl.where(unknown, 0, label).to(tl.int32)
    if R == 1:
        keys = _keys(logits, tl.arange(0, C), label, n)
    else:
        chunk = _leading_chunks(logits, label, n, M, C, TILE)
        members = chunk[:, None] + tl.arange(0, R)[None, :] * C
        keys = tl.ravel(_keys(logits, members, label, n))
    keys = tl.topk(keys, M)
    slot = tl.arange(0, M)
    label_score = tl.load(logits + label).to(tl.float32)
    scores = tl.where(slot == 0, label_score, _value((keys >> _INDEX_BITS).to(tl.int32)))
    classes = tl.where(slot == 0, label, _index(keys))
    # Comparisons with NaN are false: this is also true for NaN.
    broken = (slot < m) & ((scores < float("inf")) == 0)

    ruled_out = scores == -float("inf")
    weakest = tl.min(tl.where(ruled_out | (slot >= m), float("inf"), scores))
    floor = tl.where(weakest == float("inf"), 0.0, weakest) - _MASKED_GAP
    scores = tl.where(ruled_out, floor, scores)
    label_score = tl.where(label_score == -float("inf"), floor, label_score)
    rival = (slot < m) & (slot > 0)
    above = (rival & (scores > label_score)).to(tl.int32) + (rival & (scores >= label_score)).to(tl.int32)
    return Ranked(scores, classes, ruled_out, tl.sum(above) // 2, unknown | (tl.sum(broken.to(tl.int32)) > 0))


@device
def places(above: tl.tensor, M: tl.constexpr) -> tl.tensor:
    """Return where each slot stands in the order of falling scores, (M,)."""
    rival = tl.arange(0, M) - 1
    return tl.where(rival < 0, above, rival + (rival >= above).to(tl.int32))


@device
def slots(above: tl.tensor, place: tl.tensor) -> tl.tensor:
    """Return the slot of each place in the order of falling scores; the inverse of `places`."""
    return tl.where(place == above, 0, place + (place < above).to(tl.int32))


@device
def _leading_chunks(
    logits: tl.tensor,
    label: tl.tensor,
    n: tl.tensor,
    M: tl.constexpr,
    C: tl.constexpr,
    TILE: tl.constexpr,
) -> tl.tensor:
    """Return the M chunks with the largest maxima, (M,); the label's is one of them."""
    chunks = tl.arange(0, C)
    depth = tl.arange(0, TILE)[:, None]
    maxima = tl.full((C,), _LOWEST, tl.int32)
    for first in range(0, tl.cdiv(n, C), TILE):
        columns = (first + depth) * C + chunks[None, :]
        maxima = tl.maximum(maxima, tl.max(_ordered(logits, columns, n), axis=0))
    maxima = tl.where(chunks == label % C, _HIGHEST, maxima)
    return _index(tl.topk(_key(maxima, chunks), M))


@device
def _keys(logits: tl.tensor, columns: tl.tensor, label: tl.tensor, n: tl.tensor) -> tl.tensor:
    return tl.where(columns == label, _HIGHEST_KEY, _key(_ordered(logits, columns, n), columns))


@device
def _ordered(logits: tl.tensor, columns: tl.tensor, n: tl.tensor) -> tl.tensor:
    """Return integers in the order of the scores, and below them all where there is no score."""
    inside = columns < n
    score = tl.load(logits + columns, mask=inside, other=0.0).to(tl.float32)
    bits = score.to(tl.int32, bitcast=True)
    # Without its sign bit a negative number is larger, the smaller it is.
    ordered = tl.where(score == score, bits ^ ((bits >> 31) & _HIGHEST), _NAN)
    return tl.where(inside, ordered, _LOWEST)


@device
def _value(ordered: tl.tensor) -> tl.tensor:
    return (ordered ^ ((ordered >> 31) & _HIGHEST)).to(tl.float32, bitcast=True)


@device
def _key(ordered: tl.tensor, index: tl.tensor) -> tl.tensor:
    # Among equals the first wins.
    return (ordered.to(tl.int64) << _INDEX_BITS) | (index ^ _HIGHEST).to(tl.int64)


@device
def _index(key: tl.tensor) -> tl.tensor:
    return (key & _HIGHEST).to(tl.int32) ^ _HIGHEST
