"""The demo: two real fine-tuning jobs on this machine, softmax cross-entropy beside a top-k loss."""

from podium.client.demo._run import run_demo

__all__ = ["run_demo"]
