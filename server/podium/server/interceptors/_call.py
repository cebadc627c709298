"""A call, and what looks on while it is carried out."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

from google.protobuf.message import Message


@dataclass(slots=True)
class Call:
    """One call of an rpc of ours."""

    method: str
    """Such as "JobService/GetJob"."""
    streams: bool
    request: Message
    context: Any


class Observer(ABC):
    """Sees a call begin, and what comes of it. Every call passes here: neither waits, nor raises."""

    @abstractmethod
    def before(self, call: Call) -> Any:
        """The call begins; what is returned is given to `after`."""

    @abstractmethod
    def after(self, call: Call, kept: Any, status: str) -> None:
        """Everything within has ended; `status` is the name of what the caller is told, such as "OK"."""
