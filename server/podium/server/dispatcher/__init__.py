"""Who runs next, and what became of those that run: one leader among the servers decides."""

from podium.server.dispatcher._delivery import Delivery, RqDelivery
from podium.server.dispatcher._dispatch import Dispatcher
from podium.server.dispatcher._leader import Leader
from podium.server.dispatcher._reconcile import Reconciler

__all__ = ["Delivery", "Dispatcher", "Leader", "Reconciler", "RqDelivery"]
