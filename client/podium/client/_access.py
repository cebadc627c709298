"""Tokens and the audit trail, as the client shows them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import grpc
from google.protobuf.duration_pb2 import Duration

from podium.api.v1 import audit_service_pb2, audit_service_pb2_grpc, token_service_pb2, token_service_pb2_grpc
from podium.jobs.audit import AuditEvent
from podium.jobs.tokens import Role, Token
from podium.jobs.wire import from_proto


@dataclass(frozen=True, kw_only=True)
class NewToken:
    """A token and its secret, which is shown this once."""

    token: Token
    secret: str = field(repr=False)


class Access:
    """TokenService and AuditService.

    Args:
        channel: the connection.
        unary: makes a call, with everything that goes with one.
    """

    def __init__(self, channel: grpc.Channel, unary: Callable[[Any, Any], Any]) -> None:
        self._tokens = token_service_pb2_grpc.TokenServiceStub(channel)
        self._audit = audit_service_pb2_grpc.AuditServiceStub(channel)
        self._unary = unary

    def create(self, name: str, *, project: str, role: Role, time_to_live: timedelta | None) -> NewToken:
        request = token_service_pb2.CreateTokenRequest(
            display_name=name, project=project, time_to_live=_duration(time_to_live)
        )
        request.role = role.value  # type: ignore[assignment]  # numbers are enum values
        return _with_secret(self._unary(self._tokens.CreateToken, request))

    def list(self, project: str) -> tuple[Token, ...]:
        request = token_service_pb2.ListTokensRequest(project=project)
        return tuple(from_proto(Token, token) for token in self._unary(self._tokens.ListTokens, request).tokens)

    def rotate(self, token_id: str, overlap: timedelta | None) -> NewToken:
        request = token_service_pb2.RotateTokenRequest(token_id=token_id, overlap=_duration(overlap))
        return _with_secret(self._unary(self._tokens.RotateToken, request))

    def revoke(self, token_id: str) -> Token:
        request = token_service_pb2.RevokeTokenRequest(token_id=token_id)
        return from_proto(Token, self._unary(self._tokens.RevokeToken, request).token)

    def caller(self) -> Token | None:
        response = self._unary(self._tokens.GetCaller, token_service_pb2.GetCallerRequest())
        return from_proto(Token, response.token) if response.HasField("token") else None

    def events(self, *, project: str, target: str) -> Iterator[AuditEvent]:
        """Page by page; a page may be short before the end."""
        token = ""
        while True:
            request = audit_service_pb2.ListAuditEventsRequest(project=project, target=target, page_token=token)
            response = self._unary(self._audit.ListAuditEvents, request)
            yield from (from_proto(AuditEvent, event) for event in response.events)
            if not (token := response.next_page_token):
                return


def _duration(span: timedelta | None) -> Duration | None:
    if span is None:
        return None
    duration = Duration()
    duration.FromTimedelta(span)
    return duration


def _with_secret(response: Any) -> NewToken:
    return NewToken(token=from_proto(Token, response.token), secret=response.secret)
