"""Who calls, and what the audit trail is to know of the call in hand."""

from contextvars import ContextVar
from dataclasses import dataclass, field

from podium.jobs.tokens import EVERY_PROJECT, Role, Token


@dataclass(frozen=True)
class Caller:
    """Who calls."""

    token: Token | None = None
    """None: the server asks for none, and the caller may do everything."""
    digest: bytes = field(default=b"", repr=False)
    """Of the secret of `token` that it showed: a token may have had others."""
    of_the_operator: bool = False
    """Whether it showed the secret of PODIUM_ADMIN_TOKEN_FILE, which can always mend what others break."""

    @property
    def name(self) -> str:
        """For the audit trail."""
        return self.token.name if self.token else "anonymous"

    @property
    def project(self) -> str:
        """The only project that it may do anything in, or EVERY_PROJECT."""
        return self.token.project if self.token else EVERY_PROJECT

    def has(self, role: Role) -> bool:
        """Whether it may do what a role may, somewhere."""
        return self.token is None or self.token.role.value >= role.value

    def covers(self, project: str) -> bool:
        """Whether it may do anything in a project; EVERY_PROJECT: in all of them."""
        return self.project in (project, EVERY_PROJECT)


ANONYMOUS = Caller()


@dataclass(slots=True)
class Facts:
    """What becomes known of a call while it is carried out. Threads that work for the call share it."""

    caller: Caller = ANONYMOUS
    project: str = ""
    target: str = ""
    ended: str = ""
    """The name of the token that was shown, where it was revoked or has expired: for the audit trail."""


_FACTS: ContextVar[Facts] = ContextVar("facts")


def begin_facts() -> Facts:
    """The facts of a call that begins."""
    found = Facts()
    _FACTS.set(found)
    return found


def facts() -> Facts:
    """The facts of the call in hand; outside of any, those of nobody's."""
    return _FACTS.get(None) or Facts()
