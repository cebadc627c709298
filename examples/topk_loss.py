"""The top-k loss in a training step of your own: python examples/topk_loss.py."""

import torch

from podium.topk import Subset, TopKCrossEntropy, topk_accuracy

model, features, labels = torch.nn.Linear(64, 1000), torch.randn(32, 64), torch.randint(1000, (32,))
loss = TopKCrossEntropy(k={1: 0.5, 5: 0.5}, sorter=Subset(), m=16)  # half top-1, half top-5; sorts 16 of 1,000 scores

logits = model(features)
loss(logits, labels).backward()
print(topk_accuracy(logits, labels, ks=(1, 5)).accuracy())
