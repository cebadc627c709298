"""Run by MLflow's own Python: its client creates runs in many threads. Speaks as benchmarks.service.clients does."""

import json
import sys
import threading
import time

from mlflow import MlflowClient


def main(url: str, clients: int, seconds: float) -> None:
    """Calls create_run for so long, and prints the seconds of each call, and of CPU for all."""
    times: list[float] = []
    begin = threading.Barrier(clients + 1)

    def one() -> None:
        client = MlflowClient(tracking_uri=url)
        client.create_run("0")
        begin.wait()
        begin.wait()
        end = time.perf_counter() + seconds
        while (began := time.perf_counter()) < end:
            client.create_run("0")
            times.append(time.perf_counter() - began)

    threads = [threading.Thread(target=one) for _ in range(clients)]
    for thread in threads:
        thread.start()
    begin.wait()
    print("ready", flush=True)
    sys.stdin.readline()
    cpu = time.process_time()
    begin.wait()
    for thread in threads:
        thread.join()
    print(json.dumps({"times": times, "cpu": time.process_time() - cpu}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]))
