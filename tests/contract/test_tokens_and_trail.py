"""Tokens and the audit trail in Redis: written once however often a write is repeated, and by one at a time."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import redis

from podium.jobs.audit import AuditEvent
from podium.jobs.errors import OutOfRangeError, UnauthenticatedError
from podium.jobs.store import StoredToken, TokenBook
from podium.jobs.store.redis import RedisAudit, RedisTokens
from podium.jobs.tokens import Role, Token, digest_of, new_secret, token_id_of, without_secrets
from podium.server.access import ANONYMOUS, Caller
from podium.server.services.tokens import Tokens

NOW = datetime(2026, 11, 26, tzinfo=UTC)
OPERATOR = Caller(Token(id="", display_name="", project="*", role=Role.ADMIN), of_the_operator=True)


def stored(token_id: str = "tok-0123456789abcdef") -> StoredToken:
    token = Token(id=token_id, display_name="ci", project="*", role=Role.ADMIN, create_time=NOW)
    return StoredToken(token=token, digest=digest_of(token_id))


def make_root(service: Tokens, name: str, time_to_live: timedelta | None = None) -> str:
    """The id of a new admin of all projects."""
    return str(root(service, name, time_to_live).token.id)


def root(service: Tokens, name: str, time_to_live: timedelta | None = None, by: Caller = OPERATOR) -> Any:
    """A new admin of all projects."""
    token, secret = service.create(by, display_name=name, project="*", role=Role.ADMIN, time_to_live=time_to_live)
    return Caller(token, digest=digest_of(secret))


class LosesAnswers:
    """A client whose scripts run, and whose first answer is lost, so that redis-py would ask again."""

    def __init__(self, client: redis.Redis) -> None:
        self._client = client

    def register_script(self, text: str) -> Any:
        script = self._client.register_script(text)

        def twice(keys: Any, args: Any) -> Any:
            script(keys=keys, args=args)
            return script(keys=keys, args=args)

        return twice

    def execute_command(self, *words: Any) -> Any:
        return self._client.execute_command(*words)  # type: ignore[no-untyped-call]  # redis-py


class TestTokens:
    def test_what_is_written_is_read_with_its_digests(self, redis_client):
        tokens, one = RedisTokens(redis_client), replace(stored(), former_digest=digest_of("former"))

        assert TokenBook() == tokens.read()
        assert tokens.write(TokenBook(), one)
        assert TokenBook(version=1, tokens={one.token.id: one}) == tokens.read()
        assert 1 == tokens.version()

    def test_a_write_on_an_old_reading_changes_nothing(self, redis_client):
        tokens, one, other = RedisTokens(redis_client), stored(), stored("tok-of-somebody-else")
        tokens.write(TokenBook(), one)

        assert not tokens.write(TokenBook(), other)
        assert {one.token.id} == tokens.read().tokens.keys()

    def test_a_write_whose_answer_is_lost_is_done_once(self, redis_client):
        tokens = RedisTokens(LosesAnswers(redis_client))  # type: ignore[arg-type]  # as far as it is looked at

        assert tokens.write(TokenBook(), stored())
        assert 1 == tokens.version()

    def test_what_is_forgotten_is_gone_and_the_server_stays_closed(self, redis_client):
        tokens, one, other = RedisTokens(redis_client), stored(), stored("tok-2")
        tokens.write(TokenBook(), one)
        tokens.write(tokens.read(), other, [one.token.id])

        assert {"tok-2"} == tokens.read().tokens.keys()
        assert 2 == tokens.version()

    def test_of_two_admins_that_end_each_other_at_the_same_time_one_stays(self, redis_client):
        service = Tokens(RedisTokens(redis_client), clock=lambda: NOW)
        admins = [root(service, name) for name in "ab"]

        def revoke(by: Caller, other: Caller) -> str:
            try:
                service.revoke(by, other.token.id if other.token else "")
            except UnauthenticatedError as error:
                return str(error.reason)
            return "revoked"

        with ThreadPoolExecutor(2) as pool:
            answers = list(pool.map(revoke, admins, admins[::-1]))

        assert ["TOKEN_REVOKED", "revoked"] == sorted(answers)

    def test_who_was_let_in_by_an_older_look_at_the_tokens_makes_and_ends_none(self, redis_client):
        service = Tokens(RedisTokens(redis_client), clock=lambda: NOW)
        first = root(service, "first", by=ANONYMOUS)
        gone = root(service, "gone", by=first)
        service.revoke(first, gone.token.id)

        for late, reason in ((ANONYMOUS, "TOKEN_MISSING"), (gone, "TOKEN_REVOKED")):
            for ask in (
                lambda by: root(service, "late", by=by),
                lambda by: service.rotate(by, first.token.id, None),
                lambda by: service.revoke(by, first.token.id),
            ):
                with pytest.raises(UnauthenticatedError) as caught:
                    ask(late)
                assert reason == caught.value.reason
        assert {"first", "gone"} == {token.display_name for token in service.list(first, "")}

    def test_as_many_as_come_at_once_all_get_their_token(self, redis_client):
        service = Tokens(RedisTokens(redis_client), clock=lambda: NOW)

        with ThreadPoolExecutor(4) as pool:
            made = list(pool.map(lambda n: make_root(service, f"t{n}"), range(12)))

        assert set(made) == {token.id for token in service.list(ANONYMOUS, "")}

    def test_tokens_that_ended_long_ago_are_forgotten_when_another_is_made(self, redis_client):
        now = NOW
        service = Tokens(RedisTokens(redis_client), clock=lambda: now)
        make_root(service, "short", timedelta(hours=1))
        for days, left in ((89, {"short", "a"}), (91, {"a", "b"})):
            now = NOW + timedelta(days=days, hours=1)
            make_root(service, "a" if days == 89 else "b")
            assert left == {token.display_name for token in service.list(ANONYMOUS, "")}

    def test_a_secret_names_its_token_and_is_cut_to_that_name_where_it_must_not_stand(self):
        secret = new_secret("tok-0123456789abcdef")

        assert "tok-0123456789abcdef" == token_id_of(secret)
        assert None is token_id_of(secret[:-1])
        assert None is token_id_of("podium_")
        for part in (secret, secret[:-3], f"{secret}x"):
            assert "revoke tok-0123456789abcdef!" == without_secrets(f"revoke {part}!")


class TestTrail:
    def test_a_batch_whose_answer_is_lost_is_added_once(self, redis_client):
        trail = RedisAudit(LosesAnswers(redis_client), kept=100)  # type: ignore[arg-type]  # as far as looked at
        for batch in (1, 2):
            trail.append(batch, [AuditEvent(target=f"{batch}{letter}", time=NOW) for letter in "ab"])

        found, cursor = trail.page(lambda _: True)
        assert ["2b", "2a", "1b", "1a"] == [event.target for event in found]
        assert "" == cursor
        assert sorted((event.id for event in found), reverse=True) == [event.id for event in found]

    def test_two_servers_add_to_one_trail(self, redis_client):
        for writer in range(2):
            RedisAudit(redis_client, kept=100).append(1, [AuditEvent(target=str(writer))])

        assert ["1", "0"] == [event.target for event in RedisAudit(redis_client, kept=1).page(lambda _: True)[0]]

    def test_the_oldest_events_go_and_the_newest_stay(self, redis_client):
        trail = RedisAudit(redis_client, kept=500)
        for batch in range(1, 6):
            trail.append(batch, [AuditEvent(target=f"{batch}")] * 500)

        assert 500 <= redis_client.xlen("podium:audit") < 700
        assert {"5"} == {event.target for event in trail.page(lambda _: True, limit=500)[0]}

    def test_the_work_for_a_page_is_bounded_and_its_reader_comes_to_the_end_all_the_same(self, redis_client):
        trail = RedisAudit(redis_client, kept=100_000)
        trail.append(1, [AuditEvent(target="wanted")])
        for batch in range(2, 13):
            trail.append(batch, [AuditEvent(target="other")] * 1000)

        found, cursor = trail.page(lambda event: event.target == "wanted")
        assert [] == found
        assert cursor
        found, cursor = trail.page(lambda event: event.target == "wanted", before=cursor)
        assert ["wanted"] == [event.target for event in found]
        assert "" == cursor

    @pytest.mark.parametrize("cursor", ["x", "1-1", "0000000000001-000001 ", "-"])
    def test_what_is_no_cursor_is_refused(self, redis_client, cursor):
        with pytest.raises(OutOfRangeError):
            RedisAudit(redis_client, kept=1).page(lambda _: True, before=cursor)
