"""The compact gradient spread over all classes: every element of the result is written once, the kept ones twice."""

import triton.language as tl

from podium.topk.fused._triton import kernel


@kernel
def scatter_gradient(
    upstream: tl.tensor,
    gradients: tl.tensor,
    classes: tl.tensor,
    result: tl.tensor,
    upstream_stride: tl.tensor,
    n: tl.tensor,
    m: tl.tensor,
    M: tl.constexpr,
    BLOCK: tl.constexpr,
    ALIGN: tl.constexpr,
) -> None:
    """Do one row: upstream (N,) of any stride, gradients and classes (N, m), result (N, n); n in units of ALIGN."""
    row = tl.program_id(0).to(tl.int64)
    n = n * ALIGN
    result += row * n
    slot = tl.arange(0, M)
    pulled = tl.load(upstream + row * upstream_stride).to(tl.float32) * tl.load(
        gradients + row * m + slot, mask=slot < m, other=0.0
    )
    place = tl.load(classes + row * m + slot, mask=slot < m, other=0)
    columns = tl.arange(0, BLOCK)
    zeros = tl.zeros((BLOCK,), result.dtype.element_ty)
    for first in range(0, n, BLOCK):
        tl.store(result + first + columns, zeros, mask=first + columns < n)
    # The zeros were written by other threads.
    tl.debug_barrier()
    tl.store(result + place, pulled.to(result.dtype.element_ty), mask=slot < m)
