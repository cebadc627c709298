"""The door: who is it, not too often, and may they? In this order: nobody is worked for before they are known."""

import asyncio
from collections.abc import Sequence
from functools import cache
from typing import Any

from google.protobuf.message import Message

from podium.jobs.errors import PermissionDeniedError, UnauthenticatedError
from podium.jobs.store import JobStore
from podium.jobs.tokens import EVERY_PROJECT, Role
from podium.server.access._caller import ANONYMOUS, Caller, facts
from podium.server.access._keyring import Keyring, token_missing, token_unknown
from podium.server.access._limits import Limits, host_of
from podium.server.access._ownership import Ownership
from podium.server.access._rules import RULES, Of, Rule

DEFAULT_PROJECT = "default"
_BEARER = "bearer "


class Door:
    """Lets calls in.

    Args:
        keyring: the tokens.
        limits: how much one caller may ask for.
        store: the ledger, which knows whose a job is.
    """

    def __init__(self, keyring: Keyring, limits: Limits, store: JobStore) -> None:
        self.keyring = keyring
        self.limits = limits
        self.ownership = Ownership(store)

    async def identify(self, context: Any, request: Message | None = None) -> Caller:
        """Who calls.

        Raises:
            UnauthenticatedError: no token, or one that is not good.
            ResourceExhaustedError: too many calls, or too many without a good token.
            UnavailableError: whether the token is good cannot be told now.
        """
        caller = ANONYMOUS
        if self.keyring.asks:
            caller = await self._holder(_secret(context, request), host_of(context.peer()))
        self.limits.call(counted_as(caller, context))
        return caller

    async def _holder(self, secret: str, peer: str) -> Caller:
        if not secret:
            self.limits.failure(peer)
            raise token_missing()
        try:
            caller = self.keyring.holder(secret)
        except UnauthenticatedError:
            # Its secret was the right one.
            facts().ended = self.keyring.name_of(secret)
            self.limits.failure(peer)
            raise
        if caller is None:
            self.limits.failure(peer)
            # Another server may have made it a moment ago.
            await self.keyring.look()
            caller = self.keyring.holder(secret)
        if caller is None:
            raise token_unknown()
        return caller

    async def admit(self, method: str, request: Any, context: Any) -> None:
        """Lets a call in, if its caller may make it; notes what it is about, whoever makes it.

        Raises:
            PermissionDeniedError: the caller's role or project does not allow it.
            NotFoundError: it is about a job or a checkpoint that is none of the caller's business, or none at all.
            PodiumError: as `identify`.
        """
        rule, known = RULES[method], facts()
        known.target, known.project = target_of(request), named_project(rule, request)
        known.caller = caller = await self.identify(context, request)
        if caller.token is not None:  # else everybody may do everything
            if caller.project != EVERY_PROJECT:
                known.project = known.project or caller.project
            _check_role(method, rule, request, caller)
            await self._check_owner(rule, request, caller)
        if rule.changes and not known.project and rule.of in (Of.JOB, Of.CHECKPOINT):
            # For the audit trail, which afterwards could not find it out: the call may delete the job.
            look = self.ownership.project_of if rule.of is Of.JOB else self.ownership.project_of_checkpoint
            known.project = await asyncio.to_thread(look, known.target)

    async def _check_owner(self, rule: Rule, request: Any, caller: Caller) -> None:
        owners = self.ownership
        if caller.project == EVERY_PROJECT:
            return
        if rule.of in (Of.JOB, Of.JOBS):
            job_ids: Sequence[str] = [request.job_id] if rule.of is Of.JOB else list(request.after_sequences)
            if not all(owners.knows(caller, job_id) for job_id in job_ids):
                await asyncio.to_thread(owners.check_jobs, caller, job_ids)
        elif rule.of is Of.CHECKPOINT:
            await asyncio.to_thread(owners.check_checkpoint, caller, request.checkpoint_id)


_ROLES = {
    Role.VIEWER: "viewers, submitters and admins",
    Role.SUBMITTER: "submitters and admins",
    Role.ADMIN: "admins",
}


def _check_role(method: str, rule: Rule, request: Any, caller: Caller) -> None:
    if not caller.has(rule.role):
        raise PermissionDeniedError(
            f"{method.partition('/')[2]} is for {_ROLES[rule.role]}; {_whose(caller)}",
            metadata={"role": rule.role.name},
        )
    if not caller.covers(_needed_project(rule, request, caller)):
        raise PermissionDeniedError(f"{_about(rule, request)}; {_whose(caller)}")


def counted_as(caller: Caller, context: Any) -> str:
    """The name under which a caller's calls and streams are counted."""
    return caller.token.id if caller.token else host_of(context.peer())


def target_of(request: Any) -> str:
    """What a request is about: a job, a checkpoint, a machine or a token; empty: none of these."""
    kind: Any = type(request)
    field = _target_field(kind)
    return getattr(request, field) if field else ""


@cache
def _target_field(message: Any) -> str:
    fields = message.DESCRIPTOR.fields_by_name
    return next((name for name in ("job_id", "checkpoint_id", "node_id", "token_id", "target") if name in fields), "")


def named_project(rule: Rule, request: Any) -> str:
    """The project that a request names; empty: none."""
    if rule.of is Of.PROJECT:
        return request.project or DEFAULT_PROJECT
    return request.project if rule.of is Of.PROJECT_OR_ALL else ""


def _needed_project(rule: Rule, request: Any, caller: Caller) -> str:
    if rule.of is Of.ALL:
        return EVERY_PROJECT
    if rule.of is Of.PROJECT_OR_ALL:
        return request.project or EVERY_PROJECT
    return named_project(rule, request) or caller.project


def _about(rule: Rule, request: Any) -> str:
    if rule.of is Of.ALL:
        return 'that is for admins of "*", all projects'
    named = named_project(rule, request)
    if not named:
        return "that is about all projects; name one"
    return f"that is about the project {named!r} (--project or PODIUM_PROJECT names another)"


def _whose(caller: Caller) -> str:
    token = caller.token
    if token is None:
        return "nobody is"
    where = "all projects" if token.project == EVERY_PROJECT else f"the project {token.project!r}"
    return f"{token.name} is {token.role.name.lower()} of {where}"


def _secret(context: Any, request: Any) -> str:
    for key, value in context.invocation_metadata() or ():
        if key == "authorization" and isinstance(value, str) and value[: len(_BEARER)].lower() == _BEARER:
            return value[len(_BEARER) :].strip()
    return _secret_of_keda(request) if request is not None else ""


def _secret_of_keda(request: Any) -> str:
    """KEDA's trigger sends no authorization, but its own metadata: of `tokenFromEnv` it sends the variable's value."""
    fields = request.DESCRIPTOR.fields_by_name
    if "scaled_object_ref" in fields:
        request = request.scaled_object_ref
    elif "scaler_metadata" not in fields:
        return ""
    secret: str = request.scaler_metadata.get("token", "") or request.scaler_metadata.get("tokenFromEnv", "")
    return secret
