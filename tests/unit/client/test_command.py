import os
import subprocess
import sys
import time

import click
import pytest

from podium.client import (
    FailedPreconditionError,
    FieldViolation,
    InvalidSpecError,
    NotFoundError,
    PodiumError,
    State,
    UnavailableError,
)
from podium.client._endpoints import announce, announced, withdraw
from podium.client.cli import COMMANDS, cli
from podium.client.cli._exit import outcome, run
from podium.client.cli._home import DEFAULT_TARGET, Cursors, find_target

HEAVY = {"torch", "redis", "rq", "pandas", "numpy", "fsspec", "timm", "podium.server", "podium.worker"}


def loaded_by(code: str) -> set[str]:
    """The modules that a fresh interpreter has after it ran the code: what a start costs, on a busy machine too."""
    told = subprocess.check_output(
        [sys.executable, "-c", f"import sys; {code}; print(); print(*sys.modules)"], text=True, timeout=60
    )
    return set(told.splitlines()[-1].split())


def test_importing_the_client_is_light():
    modules = loaded_by("import podium.client as c; [getattr(c, name) for name in c.__all__]")

    assert "podium.client" in modules
    assert set() == modules & HEAVY
    assert len(modules) < 400  # it was 315


def test_help_is_light_and_loads_neither_grpc_nor_rich():
    modules = loaded_by("from podium.client.cli import cli; cli.main(['--help'], standalone_mode=False)")

    assert "podium.client.cli" in modules
    assert set() == modules & {*HEAVY, "grpc", "google", "rich", "yaml", "asyncio"}
    assert len(modules) < 150  # it was 111


def test_every_published_name_exists():
    import podium.client

    assert [] == [name for name in podium.client.__all__ if not hasattr(podium.client, name)]
    with pytest.raises(AttributeError, match="no_such_name"):
        podium.client.no_such_name  # noqa: B018  # looking it up is what is tested


def test_a_data_root_that_is_not_there_or_an_address_without_a_port_is_refused_at_once(tmp_path, capsys):
    assert 2 == run(cli, ["up", "--local", "--data-dir", str(tmp_path / "kept"), "--data-root", "/nowhere"])
    assert 2 == run(cli, ["up", "--local", "--data-dir", str(tmp_path / "kept"), "--listen", "nonsense"])
    said = capsys.readouterr().err
    assert "'/nowhere' does not exist" in said
    assert "'nonsense' is no HOST:PORT" in said
    assert not (tmp_path / "kept").exists()


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself(name, capsys):
    assert 0 == run(cli, [name, "--help"])

    assert "Usage: podium " + name in capsys.readouterr().out


def test_the_help_names_every_command(capsys):
    run(cli, ["--help"])

    shown = capsys.readouterr().out
    assert [] == [name for name in COMMANDS if f"\n  {name} " not in shown]


def test_the_help_begins_with_two_lines_for_who_has_no_server_yet(capsys):
    run(cli, ["--help"])

    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["No", "server", "yet?", "podium", "demo", "or", "podium", "up", "--local"] in lines


def test_an_earlier_name_of_a_command_still_works_and_is_not_in_the_help(capsys):
    assert 0 == run(cli, ["pool", "--help"])
    assert "why one takes no jobs" in capsys.readouterr().out

    run(cli, ["--help"])
    assert "  pool " not in capsys.readouterr().out


def test_every_priority_can_be_asked_for():
    from podium.client import Priority
    from podium.client.cli.control import PRIORITIES

    assert [priority.name.lower() for priority in Priority] == list(PRIORITIES)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "give --priority, --label or both"),
        (["--label", "team"], "write NAME=VALUE, or NAME= to remove it"),
        (["--priority", "now"], "'low', 'normal', 'high', 'urgent'"),
    ],
)
def test_an_update_that_cannot_be_meant_is_told_what_to_write(words, told, capsys):
    assert 2 == run(cli, ["update", "job-1", *words, "--server", "127.0.0.1:1"])

    assert told in capsys.readouterr().err


def raising(error: BaseException) -> click.Command:
    @click.command()
    def command() -> None:
        raise error

    return command


@pytest.mark.parametrize(
    ("error", "code", "told"),
    [
        (InvalidSpecError([FieldViolation(field="spec.m", description="too small")]), 2, "spec.m: too small"),
        (NotFoundError("?", violations=[FieldViolation(field="spec.x", description="no")]), 2, "spec.x: no"),
        (NotFoundError("no job-1 here"), 5, "no job-1 here"),
        (UnavailableError("nobody at h:1", metadata={"target": "h:1"}), 4, "nobody at h:1; start one with `podium up"),
        (UnavailableError("the ledger takes no writes now"), 4, "the ledger takes no writes now\n"),
        (FailedPreconditionError("it has ended"), 1, "it has ended"),
        (PodiumError("\x1b[2Jgone"), 1, "\N{REPLACEMENT CHARACTER}[2Jgone"),
        (FileNotFoundError(2, "No such file or directory", "job.yaml"), 2, "job.yaml: No such file"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (click.UsageError("what?"), 2, "what?"),
    ],
)
def test_an_error_is_a_sentence_and_an_exit_code(error, code, told, capsys):
    assert code == run(raising(error), [])

    shown = capsys.readouterr()
    assert told in shown.err
    assert "Traceback" not in shown.err


@pytest.mark.parametrize(("state", "code"), [(State.SUCCEEDED, 0), (State.FAILED, 1), (State.CANCELLED, 3)])
def test_the_exit_code_is_the_jobs_outcome(state, code):
    assert code == outcome(state)


def test_no_server_is_said_in_one_sentence(capsys):
    assert 4 == run(cli, ["ls", "--server", "127.0.0.1:1"])

    shown = capsys.readouterr().err
    assert "no Podium server answers at 127.0.0.1:1 (" in shown
    assert 1 == shown.count("\n")


def test_a_cursor_is_remembered_until_it_is_forgotten(tmp_path):
    cursors = Cursors(tmp_path / "watches")

    cursors.put("job-1", 41)
    assert 41 == Cursors(tmp_path / "watches").get("job-1")

    cursors.forget("job-1")
    assert 0 == cursors.get("job-1")


def test_the_local_stack_is_found_only_while_it_lives(tmp_path):
    folder = tmp_path / "endpoints"
    assert [] == announced(folder)

    announce(folder, "127.0.0.1:5")
    assert ["127.0.0.1:5"] == announced(folder)

    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    (folder / str(os.getpid())).rename(folder / str(ended.pid))
    assert [] == announced(folder)

    announce(folder, "127.0.0.1:6")
    assert [str(os.getpid())] == [file.name for file in folder.iterdir()]


def test_of_two_local_stacks_the_newer_one_is_found_and_the_other_when_that_has_ended(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    folder = tmp_path / "podium" / "endpoints"
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as first:
        announce(folder, "127.0.0.1:5")
        (folder / str(os.getpid())).rename(folder / str(first.pid))
        os.utime(folder / str(first.pid), ns=(0, 0))  # a while ago
        announce(folder, "127.0.0.1:6")
        both = find_target(None)
        withdraw(folder)
        left = find_target(None)
        assert first.stdin is not None
        first.stdin.close()

    assert ("127.0.0.1:6", "127.0.0.1:5") == (both, left)
    assert DEFAULT_TARGET == find_target(None)


def test_a_child_on_the_leash_ends_when_its_parent_is_killed(tmp_path):
    code = (
        "import sys, time; from pathlib import Path; from podium.client.local._child import Child, Program; "
        f"child = Child(Program(name='sleeper', command=('sleep', '60'), log=Path({str(tmp_path / 'log')!r}))); "
        "print(child.pid, flush=True); time.sleep(60)"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())

    parent.kill()
    parent.wait()
    parent.stdout.close()

    deadline = time.monotonic() + 60
    while alive(child):
        assert time.monotonic() < deadline, "the child outlived its parent"
        time.sleep(0.05)


def alive(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as stat:  # noqa: PTH123  # a number, no path
            return stat.read().split()[2] != "Z"
    except OSError:
        return False


def test_redis_keeps_its_password_to_itself(tmp_path):
    from podium.client.local._redis import RedisFiles

    files = RedisFiles(tmp_path / "redis")
    password = files.password_file.read_text()

    assert [0o600, 0o600] == [file.stat().st_mode & 0o777 for file in (files.config, files.password_file)]
    assert 0o700 == (tmp_path / "redis").stat().st_mode & 0o777
    assert password not in files.url
    assert RedisFiles(tmp_path / "redis").password_file.read_text() == password
