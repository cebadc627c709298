"""Who runs next, and what became of those that run: one leader among the servers decides. See docs/scheduling.md."""

from podium.server.dispatcher._archive import Archiver
from podium.server.dispatcher._deletions import Deleter
from podium.server.dispatcher._delivery import Delivery, RqDelivery
from podium.server.dispatcher._dispatch import Dispatcher
from podium.server.dispatcher._leader import Leader
from podium.server.dispatcher._outlook import Outlook
from podium.server.dispatcher._pool import Demand, demand_of
from podium.server.dispatcher._reconcile import Reconciler
from podium.server.dispatcher._shares import Sharing, sharing_from_environment
from podium.server.dispatcher._snapshots import Snapshots
from podium.server.dispatcher._upkeep import Upkeep

__all__ = [
    "Archiver",
    "Deleter",
    "Delivery",
    "Demand",
    "Dispatcher",
    "Leader",
    "Snapshots",
    "Outlook",
    "Reconciler",
    "RqDelivery",
    "Sharing",
    "Upkeep",
    "demand_of",
    "sharing_from_environment",
]
