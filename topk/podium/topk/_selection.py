"""Which scores reach a family, and in which order.

Petersen et al., ICML 2022: sorting m of n scores is enough, because only the top of the order enters the loss.
Every family gets its scores *ranked*: the label first, then its m - 1 strongest rivals by falling score. So nothing
depends on the order of the classes, and no family has to sort again. All of it is gather and scatter of fixed shape:
nothing waits for the device.

Shape legend: `...` any leading dimensions, n classes, m kept scores.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from podium.topk._eager import may_look

# Fewer scores than this per chunk or chunks than this per kept score, and one pass of topk is as fast.
_LEAST_CHUNK = 4
# Among fewer scores than this a selection costs the same, and three of them more than two.
_LEAST_SELECTION = 64
_MASKED_GAP = 100.0


class Ranked(NamedTuple):
    """The kept scores of each sample.

    Attributes:
        scores: Label first, then rivals by falling score, (..., m); at least float32, finite where the logits are.
        classes: The class of each, (..., m) int64.
        ruled_out: Whether a score stands for a logit of -inf, (..., m) bool; None if it is known that none does.
    """

    scores: Tensor
    classes: Tensor
    ruled_out: Tensor | None

    def sparing(self, gradient: Tensor) -> Tensor:
        """Return the gradient by the scores, (..., m), without that of classes which are ruled out."""
        return gradient if self.ruled_out is None else gradient.masked_fill(self.ruled_out, 0.0)


def rank(logits: Tensor, labels: Tensor, m: int) -> Ranked:
    """Keep the label and its m - 1 strongest rivals.

    A class ruled out by -inf gets a score 100 below the weakest finite one that was kept: beyond the reach of a
    softmax, near enough to cost the others no digits.
    """
    classes = _label_first(strongest(logits, m), labels)
    kept = logits.gather(-1, classes)
    kept = kept.to(torch.promote_types(kept.dtype, torch.float32))
    if may_look(kept) and kept.numel() and kept.amin().item() > -torch.inf:
        return Ranked(kept, classes, None)
    ruled_out = kept == -torch.inf
    weakest = kept.masked_fill(ruled_out, torch.inf).amin(-1, keepdim=True)
    floor = torch.where(weakest == torch.inf, 0.0, weakest) - _MASKED_GAP
    return Ranked(torch.where(ruled_out, floor, kept), classes, ruled_out)


def _label_first(classes: Tensor, labels: Tensor) -> Tensor:
    """Return the label and then the other classes, without the weakest where the label is not among them."""
    label, others = labels.unsqueeze(-1), classes.shape[-1] - 1
    label_passed = (classes == label).cumsum(-1)[..., :others]
    order = torch.arange(others, device=classes.device)
    return torch.cat([label, classes.gather(-1, order + label_passed)], dim=-1)


def strongest(scores: Tensor, m: int, *, in_order: bool = True) -> Tensor:
    """Return the places of the m largest scores, (..., m), by falling score or else in any order.

    On a CPU a top-k of many scores is slow where a maximum is fast. The scores are dealt into chunks; the m largest
    lie in the m chunks with the largest maxima, which are found likewise, so only those are searched. Exact, whatever
    the scores.
    """
    n = scores.shape[-1]
    chunk = _chunk(n, m) if scores.device.type == "cpu" else 0
    if chunk < _LEAST_CHUNK:
        return scores.topk(m, dim=-1, sorted=in_order).indices
    count = n // chunk
    # Score j is in chunk j mod count: a maximum over chunks is then one over whole rows of memory.
    maxima = scores[..., : chunk * count].reshape(*scores.shape[:-1], chunk, count).amax(-2)
    chosen = strongest(maxima, m, in_order=False)
    offsets = torch.arange(0, chunk * count, count, device=scores.device)
    places = (chosen.unsqueeze(-2) + offsets.unsqueeze(-1)).flatten(-2)
    if chunk * count < n:
        rest = torch.arange(chunk * count, n, device=scores.device)
        places = torch.cat([places, rest.expand(*places.shape[:-1], -1)], dim=-1)
    return places.gather(-1, scores.gather(-1, places).topk(m, dim=-1, sorted=in_order).indices)


def _chunk(n: int, m: int) -> int:
    """Return how many scores a chunk holds so that each selection, of chunks or of scores, is among equally many."""
    thrice = (n / m) ** (1 / 3)
    return int(thrice if thrice > _LEAST_CHUNK and m * thrice >= _LEAST_SELECTION else (n / m) ** (1 / 2))


def places_by_score(ranked_scores: Tensor) -> Tensor:
    """Return where each of the ranked scores stands in the order of falling scores, (..., m) int64.

    The rivals are in order already, so that it is enough to find the label's place. Among equals it takes the middle:
    a tie tells nothing about which one is the label.
    """
    label, rivals = ranked_scores[..., :1], ranked_scores[..., 1:]
    others = rivals.shape[-1]
    # A rival above counts two, an equal one, one below none.
    above = (((rivals - label).sign_().sum(-1, keepdim=True) + others) / 2).to(torch.int64)
    order = torch.arange(others, device=rivals.device)
    return torch.cat([above, order + (order >= above)], dim=-1)
