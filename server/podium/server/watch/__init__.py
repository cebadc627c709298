"""Watching jobs: one reader of the ledger for the whole process, however many watchers."""

from podium.server.watch._hub import Hub
from podium.server.watch._watch import Watches

__all__ = ["Hub", "Watches"]
