"""The loss under DistributedDataParallel: two ranks with half a batch each learn what one learns from the whole."""

import subprocess
import sys
from pathlib import Path

import torch

from podium.topk import SplitterSelection, TopKCrossEntropy

#: The ranks are forks of one process, which imports what both need.
_RANKS = """
import os, sys
import torch
import torch._dynamo  # DistributedDataParallel would, in each of them
import torch.distributed as dist
from podium.topk import SplitterSelection, TopKCrossEntropy

folder, other = sys.argv[1], os.fork()
rank = 0 if other else 1
dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
inputs, labels, weight, bias = torch.load(f"{folder}/data.pt", weights_only=True)
model = torch.nn.Linear(8, 20)
model.load_state_dict({"weight": weight, "bias": bias})
parallel = torch.nn.parallel.DistributedDataParallel(model)
half = slice(6 * rank, 6 * rank + 6)
loss = TopKCrossEntropy(k={1: 0.5, 5: 0.5}, sorter=SplitterSelection(), m=12)
loss(parallel(inputs[half]), labels[half]).backward()
torch.save(model.weight.grad, f"{folder}/gradient{rank}.pt")
dist.destroy_process_group()
if other:
    sys.exit(os.waitpid(other, 0)[1] != 0)
"""


def test_two_ranks_learn_what_one_does(tmp_path: Path):
    model = torch.nn.Linear(8, 20)
    inputs, labels = torch.randn(12, 8), torch.randint(20, (12,))
    torch.save([inputs, labels, model.weight.detach(), model.bias.detach()], tmp_path / "data.pt")

    subprocess.run([sys.executable, "-c", _RANKS, str(tmp_path)], check=True, timeout=120)

    loss = TopKCrossEntropy(k={1: 0.5, 5: 0.5}, sorter=SplitterSelection(), m=12)
    torch.autograd.backward(loss(model(inputs), labels))
    assert model.weight.grad is not None
    for rank in range(2):
        torch.testing.assert_close(model.weight.grad, torch.load(tmp_path / f"gradient{rank}.pt", weights_only=True))
