"""The workshop: the node agent, the RQ workers, the attempt and the training loop.

Programs, parent to child: `python -m podium.worker` (the node agent, one a machine), `podium.worker.slot` (one RQ
worker a slot) and `podium.worker.horse` (one process an attempt, started ahead of it). Where a job has several devices,
`podium.worker.torchrun` and `podium.worker.rank` (one a device) follow. The first two never import torch.
"""
