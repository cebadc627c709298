"""The workshop: the node agent, the RQ workers, the attempt and the training loop.

Three programs, parent to child: `python -m podium.worker` (the node agent, one a machine), `podium.worker.slot` (one RQ
worker a slot) and `podium.worker.horse` (one process an attempt). Only the last one imports torch.
"""
