"""Redis, a server and a worker on this machine, looked after by one process: `podium up --local`."""

from podium.client.local._stack import LocalStackError, Stack, StackConfig

__all__ = ["LocalStackError", "Stack", "StackConfig"]
