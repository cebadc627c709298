"""The front desk over TLS: real handshakes, real certificates, and what a caller learns who gets it wrong."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import grpc
import pytest
from click.testing import CliRunner

from podium.api.v1.server_service_pb2 import GetServerInfoRequest, GetServerInfoResponse
from podium.client import Client, Tls, UnavailableError
from podium.jobs.settings import Settings
from podium.jobs.store import Leases
from podium.server import probe
from podium.server.__main__ import main
from podium.server.app import App, Options
from podium.server.tls import ServerTls, is_local
from tests.certificates import Authority
from tests.conftest import RedisServer
from tests.integration.conftest import ServerProcess


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tls")


@pytest.fixture(scope="module")
def authority(folder: Path) -> Authority:
    return Authority(folder)


VERSION = grpc.method_handlers_generic_handler(
    "podium.api.v1.ServerService",
    {
        "GetServerInfo": grpc.unary_unary_rpc_method_handler(
            lambda *_: GetServerInfoResponse(version="1"),
            request_deserializer=GetServerInfoRequest.FromString,
            response_serializer=GetServerInfoResponse.SerializeToString,
        )
    },
)


@pytest.fixture
def port() -> Iterator[Callable[[ServerTls | None], str]]:
    """Opens ports, as the server does, with nothing but a version behind them."""
    servers = []

    def serve(tls: ServerTls | None) -> str:
        server = grpc.server(ThreadPoolExecutor(2))
        server.add_generic_rpc_handlers((VERSION,))
        servers.append(server)
        anywhere = "127.0.0.1:0"
        number = server.add_secure_port(anywhere, tls.credentials()) if tls else server.add_insecure_port(anywhere)
        server.start()
        return f"127.0.0.1:{number}"

    yield serve
    for server in servers:
        server.stop(0).wait()


@pytest.fixture
def encrypted(port: Callable[[ServerTls | None], str], authority: Authority) -> str:
    pem, key = authority.sign("server", "127.0.0.1")
    return port(ServerTls(certificate=pem, key=key))


@pytest.fixture(scope="module")
def strict(
    _redis_process: RedisServer, folder: Path, authority: Authority, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServerProcess]:
    """A whole server, which asks for a certificate."""
    pem, key = authority.sign("strict", "127.0.0.1")
    files = {"PODIUM_TLS_CERT": str(pem), "PODIUM_TLS_KEY": str(key), "PODIUM_TLS_CLIENT_CA": str(authority.ca)}
    stores = {"PODIUM_REDIS_URL": f"{_redis_process.url}?db=2", "PODIUM_ARTIFACTS": str(folder)}
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("GRPC_VERBOSITY", raising=False)  # the command, in another test of this process, sets it
        server = ServerProcess(tmp_path_factory.mktemp("strict"), {**stores, **files})
        server.start()
    yield server
    server.stop()


@pytest.fixture
def mutual(strict: ServerProcess) -> str:
    return strict.address


def version(address: str, tls: Tls | None) -> str:
    with closing(Client(address, tls=tls, timeout=10)) as client:
        return client.server_info().version


def trouble(address: str, tls: Tls | None) -> str:
    with pytest.raises(UnavailableError) as caught:
        version(address, tls)
    assert "TLS_FAILED" == caught.value.reason
    return caught.value.message


def test_a_caller_that_knows_the_authority_is_served(encrypted, authority, monkeypatch):
    assert version(encrypted, Tls(ca=authority.ca))

    monkeypatch.setenv("SSL_CERT_FILE", str(authority.ca))
    assert version(encrypted, Tls())


def test_whoever_gets_it_wrong_is_told_what_it_is(encrypted, port, authority, folder):
    stranger = Authority(folder / "elsewhere", "stranger")

    assert "if it asks for TLS, see --tls" in trouble(encrypted, None)
    assert "signed by an authority that we do not know" in trouble(encrypted, Tls(ca=stranger.ca))
    assert "it speaks without TLS" in trouble(port(None), Tls(ca=authority.ca))


def test_a_certificate_for_another_name_is_refused_unless_that_name_is_meant(port, authority):
    pem, key = authority.sign("elsewhere", "podium.example.com")
    address = port(ServerTls(certificate=pem, key=key))

    assert "its certificate is for another name" in trouble(address, Tls(ca=authority.ca))
    assert version(address, Tls(ca=authority.ca, server_name="podium.example.com"))


def test_new_files_are_used_without_a_restart_and_bad_ones_never(port, authority, caplog):
    pem, key = authority.sign("renewed", "127.0.0.1")
    address = port(ServerTls(certificate=pem, key=key))
    assert version(address, Tls(ca=authority.ca))

    authority.sign("renewed", "podium.example.com")
    assert "for another name" in trouble(address, Tls(ca=authority.ca))
    key.write_text("half of a k")
    assert version(address, Tls(ca=authority.ca, server_name="podium.example.com"))
    assert "the old ones stay in use" in caplog.text


def test_a_certificate_that_callers_refuse_as_it_has_expired_is_told_of_and_a_good_one_is_not(port, authority, caplog):
    pem, key = authority.sign("old", "127.0.0.1", expired=True)
    address = port(ServerTls(certificate=pem, key=key))

    assert f"callers refuse PODIUM_TLS_CERT {pem}: certificate has expired" in caplog.text
    assert "its certificate has expired" in trouble(address, Tls(ca=authority.ca))

    caplog.clear()
    authority.sign("old", "127.0.0.1")
    assert version(address, Tls(ca=authority.ca))
    assert "callers refuse" not in caplog.text


def test_handshakes_that_fail_leave_no_line_in_the_log_and_one_of_the_probe(strict, authority, folder, monkeypatch):
    monkeypatch.delenv("GRPC_VERBOSITY", raising=False)
    stranger = Authority(folder / "unknown", "unknown")
    asked = [sys.executable, "-m", "podium.server.probe", strict.address]
    told = subprocess.run(
        asked, env={**os.environ, "PODIUM_TLS_CA": str(stranger.ca)}, capture_output=True, text=True, timeout=30
    )
    trouble(strict.address, Tls(ca=authority.ca))

    assert 1 == len(told.stderr.splitlines())
    assert "Handshake failed" not in strict.log()


def test_a_server_that_asks_for_certificates_serves_only_who_shows_one_of_its_authority(mutual, authority, folder):
    cert, key = authority.sign("caller")
    other_cert, other_key = Authority(folder / "others", "others").sign("caller")

    assert version(mutual, Tls(ca=authority.ca, cert=cert, key=key))
    assert "PODIUM_TLS_CLIENT_CERT" in trouble(mutual, Tls(ca=authority.ca))
    trouble(mutual, Tls(ca=authority.ca, cert=other_cert, key=other_key))


def test_the_probe_and_the_command_go_over_tls_as_the_environment_says(mutual, authority, monkeypatch):
    cert, key = authority.sign("operator")
    monkeypatch.setenv("PODIUM_TLS_CA", str(authority.ca))
    assert 1 == probe.main(mutual)
    monkeypatch.setenv("PODIUM_TLS_CLIENT_CERT", str(cert))
    monkeypatch.setenv("PODIUM_TLS_CLIENT_KEY", str(key))

    assert 0 == probe.main(mutual)
    command = [sys.executable, "-m", "podium.client.cli", "nodes", "--server", mutual]
    assert 0 == subprocess.run(command, timeout=60, check=False).returncode


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"PODIUM_TLS_KEY": ""}, "PODIUM_TLS_KEY is not set"),
        ({"PODIUM_TLS_CERT": "/nowhere.pem"}, "/nowhere.pem cannot be read (No such file or directory)"),
        ({"PODIUM_TLS_KEY": "OTHER"}, "cannot be used (key values mismatch); write the certificate and its own key"),
        ({"PODIUM_TLS_CLIENT_CA": "/dev/null"}, "PODIUM_TLS_CLIENT_CA /dev/null has no certificate"),
    ],
)
def test_files_that_will_not_do_are_named_and_the_server_does_not_start(changes, told, authority, folder):
    pem, key = authority.sign("good", "127.0.0.1")
    _, other = authority.sign("another", "127.0.0.1")
    files = {"PODIUM_TLS_CERT": str(pem), "PODIUM_TLS_KEY": str(key), **changes}
    environment = {name: str(other) if value == "OTHER" else value for name, value in files.items()}

    ended = CliRunner().invoke(main, ["--listen", "127.0.0.1:0"], env={"PODIUM_ARTIFACTS": "/tmp", **environment})

    assert 2 == ended.exit_code
    assert told in ended.output


def test_serving_a_network_without_tls_is_said_loudly(redis_url, tmp_path, caplog):
    settings = Settings(
        redis_url=redis_url, redis_password=None, artifacts=str(tmp_path), data_roots=(), leases=Leases()
    )

    async def serve(listen: str) -> None:
        app = App(settings, Options(listen=listen))
        await app.start()
        await app.stop()

    asyncio.run(serve("127.0.0.1:0"))
    assert "NO TLS" not in caplog.text
    asyncio.run(serve("0.0.0.0:0"))
    assert "NO TLS on 0.0.0.0:0" in caplog.text


@pytest.mark.parametrize(
    ("listen", "local"),
    [
        ("127.0.0.1:1", True),
        ("127.9.9.9:1", True),
        ("[::1]:1", True),
        ("localhost:1", True),
        ("unix:/tmp/socket", True),
        ("0.0.0.0:1", False),
        ("[::]:1", False),
        ("10.0.0.1:1", False),
        ("podium.example.com:1", False),
    ],
)
def test_only_addresses_of_this_machine_count_as_local(listen, local):
    assert local is is_local(listen)
