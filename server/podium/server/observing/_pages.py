"""What is answered at which path: /metrics, /healthz, /readyz."""

import asyncio
import json
from collections.abc import Iterable, Mapping

from prometheus_client import Metric
from prometheus_client.exposition import choose_encoder

from podium.server import meters
from podium.server.observing._figures import Figures
from podium.server.observing._listener import Answer, Page
from podium.server.observing._lookout import Lookout, ServerState

#: Within which a server that lives turns its event loop, in seconds.
_A_TURN = 2.0


def pages(lookout: Lookout, figures: Figures, loop: asyncio.AbstractEventLoop) -> Mapping[str, Page]:
    """By path. All but /healthz answer from memory; that one waits for the event loop, for 2 seconds at most."""

    def metrics(accept: str) -> Answer:
        encode, content_type = choose_encoder(accept)
        return Answer(200, content_type, encode(_Everything(figures)))

    def healthz(_: str) -> Answer:
        turn = asyncio.run_coroutine_threadsafe(asyncio.sleep(0), loop)
        try:
            turn.result(_A_TURN)
        except TimeoutError:
            turn.cancel()
            return _json(503, {"state": "hung"})
        return _json(200, {"state": lookout.state.value})

    def readyz(_: str) -> Answer:
        state = lookout.state
        serving = state is ServerState.SERVING
        return _json(200 if serving else 503, {"state": state.value})

    return {"/metrics": metrics, "/healthz": healthz, "/readyz": readyz}


class _Everything:
    """What was added up, and what is looked at, as one registry."""

    def __init__(self, figures: Figures) -> None:
        self._figures = figures

    def collect(self) -> Iterable[Metric]:
        yield from meters.REGISTRY.collect()
        yield from self._figures.collect()


def _json(status: int, words: Mapping[str, object]) -> Answer:
    return Answer(status, "application/json", json.dumps(words).encode() + b"\n")
