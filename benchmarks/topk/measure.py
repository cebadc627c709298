"""Time and memory of one forward and backward pass."""

import mmap
import multiprocessing
import os
import resource
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from typing import Any

import psutil
import torch
from torch import Tensor

from benchmarks.topk.contenders import Contender, Loss, Size, Unavailable, contenders

THREADS = 2
PEAK_NOISE = 0.3e6
"""Bytes of a CPU's peak that are noise: small blocks come from memory held already, and the kernel counts in steps."""
_PATIENCE_S = 120
_TURN_S = 0.03
_CALLS_A_TURN = 10
_RSS_UNIT = 1 if sys.platform == "darwin" else 1024

Run = Callable[[], object]


@dataclass(frozen=True, kw_only=True)
class Probe:
    """What a fresh process found: the peak in bytes, or why there is none."""

    peak: int | None = None
    why_not: str = ""


def set_up_process() -> None:
    """Give torch as many threads as a small machine has cores, so that runs compare; silence the rivals' warnings."""
    torch.set_num_threads(THREADS)
    warnings.simplefilter("ignore")


def prepare(contender: Contender, size: Size, device: torch.device) -> Run:
    """Return one training step's share of the loss as a call: forward, then the gradient of the logits."""
    return partial(_step, contender.build(size, device), *size.data(device))


def _step(loss: Loss, logits: Tensor, labels: Tensor) -> None:
    value = loss(logits, labels)
    if value.requires_grad:
        torch.autograd.grad(value, logits)


def probe(name: str, size: Size, device: torch.device) -> Probe:
    """Measure a contender's peak memory in a process of its own, which may run out of memory or time."""
    # glibc would keep freed blocks for later, and the peak would depend on luck; so it hands back 64 KiB and more.
    os.environ.setdefault("MALLOC_MMAP_THRESHOLD_", "65536")
    # Forked from a server that has imported torch but started none of its threads.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    ours, theirs = context.Pipe(duplex=False)
    child = context.Process(target=_answer, args=(theirs, name, size, device))
    child.start()
    theirs.close()
    try:
        found: Probe = ours.recv() if ours.poll(_PATIENCE_S) else Probe(why_not=f"more than {_PATIENCE_S} s")
    except EOFError:
        found = Probe(why_not="killed, out of memory")
    child.kill()
    child.join()
    return found


def _answer(answers: Connection, name: str, size: Size, device: torch.device) -> None:
    set_up_process()
    allowance = "the card has"
    if device.type == "cpu":
        # Others use the machine too.
        limit = psutil.virtual_memory().available // 2
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
        allowance = f"{limit / 1e9:.0f} GB"
    try:
        answers.send(Probe(peak=_peak(contenders()[name], size, device)))
    except Unavailable as error:
        answers.send(Probe(why_not=str(error)))
    except (MemoryError, RuntimeError) as error:
        starved = isinstance(error, MemoryError | torch.OutOfMemoryError) or "allocate memory" in str(error)
        reason = f"needs more than {allowance}" if starved else str(error).splitlines()[0]
        answers.send(Probe(why_not=reason))


def _peak(contender: Contender, size: Size, device: torch.device) -> int:
    loss = contender.build(size, device)
    logits, labels = size.data(device)
    # First a call for what is made once: threads, kernels, a network's plan. One sample is enough on a CPU, where a
    # whole batch would leave pages behind that the measured call could use again.
    few = size.batch if device.type == "cuda" else 1
    if not loss(logits[:few], labels[:few]).isfinite().all():
        raise Unavailable("gives no finite loss")
    _step(loss, logits[:few].detach().requires_grad_(), labels[:few])
    if device.type == "cpu":
        return _resident_growth(partial(_step, loss, logits, labels))
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    _step(loss, logits, labels)
    return torch.cuda.max_memory_allocated(device) - before


def _resident_growth(run: Run) -> int:
    """Return by how much the process's peak resident memory exceeds what it had right before the call.

    It counts every page that the call touched and still held at its worst moment: the gradient, what autograd saves,
    and temporaries; not the logits, and not what the loss keeps between calls. See `PEAK_NOISE`.
    """
    # The peak of the imports may lie above what is resident now and would hide that much of the call: fill it up.
    ballast = mmap.mmap(-1, max(_peak_resident() - psutil.Process().memory_info().rss, 0) + mmap.PAGESIZE)
    for page in range(0, len(ballast), mmap.PAGESIZE):
        ballast[page] = 1
    before = psutil.Process().memory_info().rss
    run()
    growth = _peak_resident() - before
    ballast.close()
    return max(growth, 0)


def _peak_resident() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _RSS_UNIT


def interleave(runs: Mapping[str, Run], device: torch.device, turns: int, patience_s: float) -> dict[str, list[float]]:
    """Time the runs in turns, A B C, B C A, ...: what slows the machine for a while slows them all.

    Args:
        runs: Calls by name.
        device: Where they work.
        turns: How many turns each gets.
        patience_s: A run that has used up so many seconds sits out after its third turn.

    Returns:
        Seconds a call, one number a turn.
    """
    names = list(runs)
    once = {name: _seconds(runs[name], device) for name in names for _ in range(2)}
    times: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(turns):
        start = turn * len(names) // turns
        for name in names[start:] + names[:start]:
            if turn < 3 or sum(times[name]) < patience_s:
                times[name].append(_turn(runs[name], once[name], device))
    return times


def _turn(run: Run, once: float, device: torch.device) -> float:
    calls = min(max(round(_TURN_S / once), 1), _CALLS_A_TURN)
    if calls > 1:
        # A short call would otherwise pay for the caches that the run before it filled.
        run()
    return statistics.median(_seconds(run, device) for _ in range(calls))


def _seconds(run: Run, device: torch.device) -> float:
    if device.type == "cuda":
        return _cuda_seconds(run)
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def _cuda_seconds(run: Run) -> float:
    event: Any = torch.cuda.Event
    start, end = event(enable_timing=True), event(enable_timing=True)
    torch.cuda.synchronize()
    start.record()
    run()
    end.record()
    torch.cuda.synchronize()
    return float(start.elapsed_time(end)) / 1000


def copy_bandwidth(device: torch.device) -> float:
    """Return the bytes a second, read and written, of a large copy on the device."""
    source = torch.empty(1 << 28, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    copy = partial(target.copy_, source)
    return 2 * source.numel() / min(_seconds(copy, device) for _ in range(20))
