"""What an operator sees of a server: metrics and health. See docs/observability.md."""

from podium.server.observing._figures import Figures
from podium.server.observing._listener import Listener
from podium.server.observing._lookout import Lookout, ServerState
from podium.server.observing._pages import pages

__all__ = ["ServerState", "Figures", "Listener", "Lookout", "pages"]
