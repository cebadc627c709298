"""Tokens and the audit trail as a user of the command and of the client meets them."""

import json
import stat

import pytest

from podium.client import Client, PermissionDeniedError, Role, UnauthenticatedError
from podium.client.cli import cli
from podium.client.cli._exit import FAILED, USAGE, run
from tests.integration.client.conftest import until


@pytest.fixture
def podium(server, monkeypatch, tmp_path, capsys):
    """Runs the command in this process: its exit code, what it prints and what it says."""
    monkeypatch.setenv("PODIUM_SERVER", server.target)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    for name in ("PODIUM_TOKEN", "PODIUM_TOKEN_FILE", "PODIUM_PROJECT"):
        monkeypatch.delenv(name, raising=False)

    def command(*arguments: str, code: int = 0) -> tuple[str, str]:
        capsys.readouterr()
        found = run(cli, list(arguments))
        printed = capsys.readouterr()
        assert code == found, printed.err
        return printed.out, printed.err

    return command


def test_the_secret_goes_into_no_file_that_is_there_and_through_no_link(podium, server, tmp_path):
    theirs, link = tmp_path / "theirs", tmp_path / "link"
    theirs.write_text("kept")
    link.symlink_to(tmp_path / "elsewhere")
    make = ("token", "create", "root", "--role", "admin", "--project")

    for file in (theirs, link):
        assert f"{file} is there already" in podium(*make, "*", "--output", str(file), code=USAGE)[1]
    assert "No tokens" in podium("token", "ls")[1]
    assert ("kept", False) == (theirs.read_text(), (tmp_path / "elsewhere").exists())

    # What the server refused leaves no file that the next try would find there.
    new = tmp_path / "new"
    podium(*make, "vision", "--output", str(new), code=USAGE)
    assert not new.exists()
    podium(*make, "*", "--output", str(new))
    assert 0o600 == stat.S_IMODE(new.stat().st_mode)


def test_a_file_of_a_secret_that_others_may_read_is_told_of_and_used(podium, server, monkeypatch, tmp_path):
    file = tmp_path / "root"
    podium("token", "create", "root", "--role", "admin", "--project", "*", "--output", str(file))
    monkeypatch.setenv("PODIUM_TOKEN_FILE", str(file))
    assert "chmod" not in podium("token", "whoami")[1]

    file.chmod(0o644)

    printed, said = podium("token", "whoami")
    assert "root" in printed
    assert [f"Warning: PODIUM_TOKEN_FILE: others than its owner may read or write {file}; chmod 600 {file}"] == (
        said.splitlines()
    )


def test_the_walk_of_a_token_from_its_making_to_its_end(podium, server, spec, monkeypatch, tmp_path):
    assert "anonymous" in podium("token", "whoami")[0]
    assert "must be admin" in podium("token", "create", "ci", "--role", "viewer", code=USAGE)[1]
    file = tmp_path / "root"
    printed, said = podium("token", "create", "root", "--role", "admin", "--project", "*", "--output", str(file))
    assert "" == printed
    assert f"PODIUM_TOKEN_FILE={file}" in said
    assert 0o600 == stat.S_IMODE(file.stat().st_mode)

    assert "PODIUM_TOKEN" in podium("ls", code=FAILED)[1]
    monkeypatch.setenv("PODIUM_TOKEN_FILE", str(file))
    assert "root" in podium("token", "whoami")[0]

    secret = podium("token", "create", "ci", "--role", "submitter", "--project", "vision", "--ttl", "90d")[0].strip()
    made = json.loads(podium("token", "ls", "--project", "vision", "--json")[0])
    assert ["ci"] == [token["display_name"] for token in made]
    token_id = made[0]["id"]
    with Client(server.target, token=secret, project="vision") as client:
        job = client.submit(spec)
        assert f"{token_id} (ci)" == job.job().created_by
        with Client(server.target, token=secret) as other, pytest.raises(PermissionDeniedError, match="'vision'"):
            list(other.list())
        with pytest.raises(PermissionDeniedError, match="admins"):
            client.create_token("more", role=Role.ADMIN)

    rotated = json.loads(podium("token", "rotate", token_id, "--overlap", "0s", "--json")[0])
    with Client(server.target, token=secret) as client, pytest.raises(UnauthenticatedError) as caught:
        client.whoami()
    assert secret not in str(caught.value)
    # In Python the environment is asked by nobody but who says so.
    with (
        Client(server.target) as client,
        pytest.raises(UnauthenticatedError, match=r"token=token_from_environment\(\)"),
    ):
        client.whoami()
    assert "revoked" in podium("token", "revoke", token_id)[0]
    with Client(server.target, token=rotated["secret"]) as client, pytest.raises(UnauthenticatedError, match="revoked"):
        client.whoami()

    with Client(server.target, token=file.read_text().strip()) as client:
        until(lambda: len(list(client.audit_events(target=token_id))) == 3)
        assert [job.id] == [event.target for event in client.audit_events(project="vision", target=job.id)]
    lines = podium("audit", "--target", token_id)[0].splitlines()
    assert ["RevokeToken", "RotateToken", "CreateToken"] == [
        line.split("TokenService/")[1].split()[0] for line in lines
    ]
    everything = "".join(podium(*words)[0] for words in (("audit",), ("token", "ls"), ("audit", "--json")))
    assert secret.rpartition("_")[2] not in everything
