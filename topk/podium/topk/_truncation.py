"""Which scores reach the sorter: the label's and those of its strongest rivals.

Petersen et al., ICML 2022: sorting m of n scores is enough, because only the top of the order enters the loss.
Everything here is gather and scatter of fixed shape, so nothing waits for the device.
"""

import torch
from torch import Tensor

_MASKED_GAP = 100.0


def keep_strongest(logits: Tensor, labels: Tensor, m: int) -> tuple[Tensor, Tensor]:
    """Keep the label and its m - 1 strongest rivals, as `(scores, classes)`, (..., m) each.

    The label comes first and the rivals follow by falling score.
    """
    boosted = logits.detach().scatter(-1, labels.unsqueeze(-1), torch.inf)
    classes = boosted.topk(m, dim=-1).indices
    return logits.gather(-1, classes), classes


def weakest_first(scores: Tensor, classes: Tensor) -> tuple[Tensor, Tensor]:
    """Sort the output of `keep_strongest` by rising score; return `(scores, lane of the label)`.

    The label stands where its own score puts it. The reference keeps it in lane 0, the far end of the network, where
    odd-even cannot see a good score; in rising order a network starts from a sorted list, and a better rank is a better
    lane. The price is a step in the loss where the label overtakes a rival and takes its lane. Ties go by class index,
    lower classes higher up, so that a tie tells nothing about which one is the label.
    """
    m = scores.shape[-1]
    own, rivals = scores.detach()[..., :1], scores.detach()[..., 1:]
    ahead = (rivals > own) | ((rivals == own) & (classes[..., 1:] < classes[..., :1]))
    lane = m - 1 - ahead.sum(-1, keepdim=True)
    # Rivals rise in lane order by counting down from m - 1; the label's lane is cut in between.
    lanes = torch.arange(m - 1, -1, -1, device=scores.device)
    source = torch.where(m - 1 - lanes < lane, lanes, lanes + 1).scatter(-1, lane, 0)
    return scores.gather(-1, source), lane.squeeze(-1)


def lift_masked(scores: Tensor) -> Tensor:
    """Replace -inf, a class ruled out, by a score far below every other one.

    A sorter subtracts scores, which infinities do not survive. The replacement is 100 below the weakest finite score:
    beyond the reach of a softmax, near enough to cost the others no digits.
    """
    finite = scores.detach().masked_fill(scores == -torch.inf, torch.inf)
    weakest = finite.amin(-1, keepdim=True)
    floor = torch.where(weakest == torch.inf, 0.0, weakest) - _MASKED_GAP
    return torch.where(scores == -torch.inf, floor, scores)
