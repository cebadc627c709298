"""Run by MLflow's own Python: one client logs points in batches of a thousand, and may read them back. Prints JSON."""

import json
import sys
import time

from mlflow import MlflowClient
from mlflow.entities import Metric


def main(url: str, batches: int, *, reads: bool) -> None:
    """Prints points a second that were logged, and the points that were read and the seconds that it took."""
    client = MlflowClient(tracking_uri=url)
    run = client.create_run("0").info.run_id
    began = time.perf_counter()
    for batch in range(batches):
        steps = range(batch * 1000, (batch + 1) * 1000)
        client.log_batch(run, metrics=[Metric("train/loss", 1 / (step + 1), 0, step) for step in steps])
    logged = batches * 1000 / (time.perf_counter() - began)
    began = time.perf_counter()
    points = len(client.get_metric_history(run, "train/loss")) if reads else 0
    print(json.dumps({"logged": logged, "read": time.perf_counter() - began, "points": points}))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), reads=sys.argv[3:] == ["read"])
