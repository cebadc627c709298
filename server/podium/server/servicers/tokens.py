"""TokenService."""

import asyncio
from datetime import timedelta
from typing import Any

from google.protobuf.duration_pb2 import Duration

from podium.api.v1 import token_service_pb2 as pb
from podium.jobs import wire
from podium.jobs.errors import FieldViolation, InvalidSpecError
from podium.jobs.tokens import Role, Token
from podium.server.access import Keyring, facts
from podium.server.services.tokens import Tokens


class TokenServicer:
    """Tokens: make, list, rotate, revoke; who am I?

    Args:
        tokens: the service.
        keyring: learns of what was written, so that this server's callers can use it at once.
    """

    def __init__(self, tokens: Tokens, keyring: Keyring) -> None:
        self._tokens = tokens
        self._keyring = keyring

    async def CreateToken(self, request: pb.CreateTokenRequest, context: Any) -> pb.CreateTokenResponse:
        """See the contract."""
        token, secret = await asyncio.to_thread(
            self._tokens.create,
            facts().caller,
            display_name=request.display_name,
            project=request.project,
            role=Role(request.role),
            time_to_live=_span(request, "time_to_live"),
        )
        return pb.CreateTokenResponse(token=await self._written(token), secret=secret)

    async def ListTokens(self, request: pb.ListTokensRequest, context: Any) -> pb.ListTokensResponse:
        """See the contract."""
        found = await asyncio.to_thread(self._tokens.list, facts().caller, request.project)
        return pb.ListTokensResponse(tokens=[wire.to_proto(token) for token in found])

    async def RotateToken(self, request: pb.RotateTokenRequest, context: Any) -> pb.RotateTokenResponse:
        """See the contract."""
        token, secret = await asyncio.to_thread(
            self._tokens.rotate, facts().caller, request.token_id, _span(request, "overlap")
        )
        return pb.RotateTokenResponse(token=await self._written(token), secret=secret)

    async def RevokeToken(self, request: pb.RevokeTokenRequest, context: Any) -> pb.RevokeTokenResponse:
        """See the contract."""
        token = await asyncio.to_thread(self._tokens.revoke, facts().caller, request.token_id)
        return pb.RevokeTokenResponse(token=await self._written(token))

    async def GetCaller(self, request: pb.GetCallerRequest, context: Any) -> pb.GetCallerResponse:
        """See the contract."""
        token = facts().caller.token
        return pb.GetCallerResponse(token=wire.to_proto(token) if token else None)

    async def _written(self, token: Token) -> Any:
        known = facts()
        known.target, known.project = token.id, token.project
        await self._keyring.look()
        return wire.to_proto(token)


def _span(request: Any, field: str) -> timedelta | None:
    if not request.HasField(field):
        return None
    span: Duration = getattr(request, field)
    try:
        return span.ToTimedelta()
    except (ValueError, OverflowError):
        problem = [FieldViolation(field=field, description="is no span of time; write seconds, such as 86400s")]
        raise InvalidSpecError(problem) from None
