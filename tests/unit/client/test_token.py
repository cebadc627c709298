"""Where a token comes from, and where it is never sent."""

import select
import socket
from typing import Any

import pytest

from podium.client import Client, FailedPreconditionError, Role, Tls, Token
from podium.client._access import NewToken
from podium.client._channel import open_channel
from podium.client._token import is_loopback, shown, token_from_environment

SECRET = "podium_0123456789abcdef_" + "s" * 43


def test_a_token_comes_from_the_variable_or_from_the_file_that_another_one_names(tmp_path):
    file = tmp_path / "token"
    file.write_text(f"{SECRET}\n")

    assert None is token_from_environment({})
    assert SECRET == token_from_environment({"PODIUM_TOKEN_FILE": str(file)})
    assert "other" == token_from_environment({"PODIUM_TOKEN": "other", "PODIUM_TOKEN_FILE": str(file)})
    with pytest.raises(ValueError, match=r"PODIUM_TOKEN_FILE: .*missing cannot be read \(No such file or directory\)"):
        token_from_environment({"PODIUM_TOKEN_FILE": str(tmp_path / "missing")})


@pytest.mark.parametrize("target", ["10.0.0.7:50051", "podium.example:443", "dns:///podium.example:1", "localhost.a:1"])
def test_a_token_is_not_sent_where_others_can_read_it(target, monkeypatch):
    monkeypatch.delenv("PODIUM_ALLOW_INSECURE_TOKEN", raising=False)
    with pytest.raises(FailedPreconditionError, match="--tls") as caught:
        Client(target, token=SECRET)

    assert "TOKEN_IN_THE_CLEAR" == caught.value.reason
    assert SECRET not in str(caught.value)
    assert (("authorization", f"Bearer {SECRET}"),) == shown(SECRET, target, encrypted=True, environ={})
    allowed = {"PODIUM_ALLOW_INSECURE_TOKEN": "1"}
    assert (("authorization", f"Bearer {SECRET}"),) == shown(SECRET, target, encrypted=False, environ=allowed)
    assert () == shown(None, target, encrypted=False, environ={})
    with Client(target, token=SECRET, tls=Tls()):
        pass


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
def test_the_way_to_this_machine_leads_over_no_proxy_of_the_environment(host, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_server(("127.0.0.1", 0)) as proxy:
        for name in ("grpc_proxy", "http_proxy", "https_proxy"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.getsockname()[1]}")
        for name in ("no_proxy", "no_grpc_proxy"):
            monkeypatch.delenv(name, raising=False)
        with open_channel(f"{host}:{server.getsockname()[1]}") as channel:
            call: Any = channel.unary_unary("/podium.api.v1.TokenService/GetCaller")
            under_way = call.future(b"")

            assert [server] == select.select([server, proxy], [], [], 20)[0]
            under_way.cancel()


@pytest.mark.parametrize(
    "target",
    [
        "127.0.0.1:50051",
        "127.8.9.1:1",
        "localhost:50051",
        "[::1]:50051",
        "dns:///localhost:1",
        "ipv4:127.0.0.1:1",
        "unix:/a",
    ],
)
def test_what_never_leaves_the_machine_needs_no_tls(target):
    assert is_loopback(target)
    with Client(target, token=SECRET):
        pass


@pytest.mark.parametrize("token", [f"{SECRET} and more", f"{SECRET}\nx-other: 1", "ünicode"])
def test_what_is_no_token_is_refused_and_not_repeated(token):
    with pytest.raises(ValueError, match="no secret of a token") as caught:
        Client("127.0.0.1:1", token=token)

    assert token not in str(caught.value)


def test_neither_a_client_nor_a_new_token_shows_its_secret():
    token = Token(id="tok-1", display_name="ci", project="vision", role=Role.VIEWER)
    made = NewToken(token=token, secret=SECRET)
    with Client("127.0.0.1:1", token=SECRET) as client:
        assert SECRET not in f"{client!r} {vars(client)!r} {made!r} {made}"
