"""Paths and URIs, which come from outside."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

import pytest
from fsspec.implementations.memory import MemoryFileSystem
from hypothesis import example, given
from hypothesis import strategies as st

from podium.jobs.locations import chunks, is_uri, local_path, opened, read_range, uri_problem, within

_part = st.text("abcXYZ019._-@%:~+", min_size=1, max_size=8)


def put(data: bytes, name: str = "/locations/file") -> str:
    MemoryFileSystem().pipe_file(name, data)
    return f"memory:/{name}"


@pytest.mark.parametrize(
    ("location", "uri", "path"),
    [
        ("/data/a", False, "/data/a"),
        ("/data/a://b", False, "/data/a://b"),
        ("file:///data/a", False, "/data/a"),
        ("s3://bucket/a", True, None),
        ("S3://bucket/a", True, None),
        ("FILE:///data", True, None),
        ("simplecache::s3://bucket/a", False, "simplecache::s3://bucket/a"),
    ],
)
def test_what_has_a_scheme_is_a_uri_but_for_file(location, uri, path):
    assert uri == is_uri(location)
    assert uri or path == local_path(location)


@pytest.mark.parametrize(
    "uri",
    [
        "s3://bucket/../other/a",
        "s3://bucket/./a",
        "s3://bucket/%2e%2E/a",
        "s3://bucket/%252e%252e/a",
        "s3://bucket/a%2f..%2fb",
        "s3://bucket/a\\..\\b",
        "s3://bucket/a%5c..%5cb",
        "s3://bucket/a?versionId=1",
        "s3://bucket/a#b",
        "s3://bucket/a b",
        "https://me:secret@good.example/a",
        "https://me@good.example/a",
        "https://good.example@evil.example",
        "s3://bucket/a\x00",
        "s3://bucket/a\n",
        "s3://bucket/a\u202e",
        "s3://bucket/a::https://evil.example/b",
        "S3://bucket/a",
        "/data/a",
        "",
    ],
)
def test_a_uri_that_could_mean_two_places_is_refused(uri):
    assert uri_problem(uri) is not None


@pytest.mark.parametrize(
    ("uri", "prefix", "inside"),
    [
        ("s3://bucket/a", "s3://bucket", True),
        ("s3://bucket/a", "s3://bucket/", True),
        ("s3://bucket/a", "s3://bucket/a", True),
        ("s3://bucket/a", "s3://", True),
        ("s3://bucket2/a", "s3://bucket", False),
        ("s3://bucket/ab", "s3://bucket/a", False),
        ("https://good.example@evil.example/a", "https://good.example", False),
        ("https://good.example:1@evil.example/a", "https://good.example", False),
        ("https://good.example.evil.example/a", "https://good.example", False),
        ("gs://bucket/a", "s3://bucket", False),
    ],
)
def test_a_prefix_ends_where_a_part_of_the_uri_ends(uri, prefix, inside):
    assert inside == within(uri, [prefix])


@given(st.lists(_part, min_size=1, max_size=5), st.lists(_part, min_size=1, max_size=5))
@example(["bucket"], ["..", "b"])
def test_what_passes_below_a_prefix_has_the_prefixs_parts_first(prefix_parts, parts):
    prefix, uri = f"s3://{'/'.join(prefix_parts)}", f"s3://{'/'.join(parts)}"

    if uri_problem(uri) is None and within(uri, [prefix]):
        assert prefix_parts == parts[: len(prefix_parts)]
        assert not {".", ".."} & set(parts)


@given(st.text(max_size=40))
def test_the_shape_of_any_text_is_judged_without_a_fault(text):
    problem = uri_problem(text)

    assert problem is None or problem.isprintable()


def test_a_file_by_uri_and_by_path_reads_the_same(tmp_path):
    (tmp_path / "file").write_bytes(b"0123456789")

    for location in (put(b"0123456789"), str(tmp_path / "file"), f"file://{tmp_path}/file"):
        with opened(location) as found:
            assert (10, b"0123456789") == (found.size, found.file.read(100))
        assert b"345" == read_range(location, 3, 3)
        assert b"" == read_range(location, 3, 0)
        assert b"9" == read_range(location, 9, 5)


def test_the_mark_of_a_uri_changes_with_its_file():
    marks = set()
    for data in (b"first", b"again"):
        with opened(put(data)) as found:
            marks.add(found.mark)

    assert 2 == len(marks)


@pytest.mark.parametrize("location", ["memory://locations/nothing", "nosuch://bucket/a", "/nowhere/at/all"])
def test_whatever_fails_is_an_os_error(location):
    with pytest.raises(OSError, match=r"nothing|nosuch|nowhere|No such"), opened(location):
        pass
    with pytest.raises(OSError, match=r"nothing|nosuch|nowhere|No such"):
        read_range(location, 0, 1)


class _Web(BaseHTTPRequestHandler):
    """Any path below /to leads elsewhere; what there is else is "secret"."""

    paths: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        self.paths.append(self.path)
        self.send_response(302 if self.path.startswith("/to") else 200)
        self.send_header("Location", "/inside")
        self.send_header("Content-Length", "6")
        self.end_headers()
        self.wfile.write(b"secret" if self.command == "GET" else b"")

    do_HEAD = do_GET

    def log_message(self, *_: object) -> None:
        pass


def test_a_redirect_is_not_followed():
    pytest.importorskip("aiohttp", reason="fsspec reads https:// with it; whoever wants that installs it")
    with ThreadingHTTPServer(("127.0.0.1", 0), _Web) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        place = f"http://127.0.0.1:{server.server_port}"
        assert b"secret" == read_range(f"{place}/here", 0, 6)
        assert [b"secret"] == list(chunks(f"{place}/here", 6))
        with pytest.raises(OSError, match="a redirect, and these are not followed"):
            read_range(f"{place}/to", 0, 6)
        for read in (lambda uri: list(chunks(uri, 6)), _open):
            with pytest.raises(OSError, match="/to"):
                read(f"{place}/to")
        server.shutdown()

    assert "/to" in _Web.paths
    assert "/inside" not in _Web.paths


def _open(uri: str) -> None:
    with opened(uri) as found:
        found.file.read()
