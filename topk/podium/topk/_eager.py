"""Whether values may be looked at: what is rare is then left out of the work of the usual call.

Neither a compiler nor vmap can follow a decision that depends on the data, and a GPU would be waited for.
"""

import torch
from torch import Tensor


def is_traced() -> bool:
    """Whether tensors may stand for others, so that none that is made now may be kept.

    So they do for a compiler and in a mode such as FakeTensorMode, which exporters and estimates of memory use.
    """
    return torch.compiler.is_compiling() or torch._C._len_torch_dispatch_stack() > 0


def may_look(values: Tensor) -> bool:
    """Whether reading values costs nothing: on the CPU, and neither traced by a compiler nor batched by vmap."""
    return (
        values.device.type == "cpu"
        and not is_traced()
        # Nobody outside torch can ask whether vmap is at work, and a batched tensor cannot be looked at.
        and torch._C._functorch.peek_interpreter_stack() is None
    )
