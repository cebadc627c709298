"""Tables with a row for each image: a .csv with a header, or a .parquet file, of paths and labels."""

import csv
import os
import stat
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO

from podium.jobs.datasets._index import (
    EXTENSIONS,
    IMAGES,
    MAX_CLASS_NAME,
    DatasetError,
    Entry,
    SplitIndex,
    is_class_name,
    shown,
)
from podium.jobs.locations import is_uri
from podium.jobs.spec import ImageManifest

#: The rows whose images are looked for before a job is accepted; the worker looks for all of them.
ROWS_AT_THE_DOOR = 10_000
_MAX_BYTES = 1 << 30
_MAX_ROWS = 20_000_000
_MAX_LINE = 1 << 20
_MAX_PATH = 4096
_BATCH_ROWS = 16_384


@dataclass(frozen=True, kw_only=True, slots=True)
class _Row:
    """One image of a table; the header is row 1 of a .csv, a .parquet file has none."""

    number: int
    path: str
    label: str


def index_table(table: str, manifest: ImageManifest) -> SplitIndex:
    """The images of a split, sorted by class and name.

    Raises:
        DatasetError: the table cannot be read, or a row names no image below the root; says which row.
    """
    place = _Place(table, manifest)
    entries, seen = [], set[str]()
    for row in _rows(place.table, manifest):
        entry = place.entry(row)
        if entry.path in seen:
            raise DatasetError(f"{place.where(row)} names {entry.name} once more; keep one row for each image")
        seen.add(entry.path)
        entries.append(entry)
    if not entries:
        raise DatasetError(f"{place.table} has no rows; write one for each image")
    entries.sort(key=lambda entry: (entry.class_name, entry.name))
    return SplitIndex(path=place.table, entries=tuple(entries))


def scan_table(table: str, manifest: ImageManifest) -> Mapping[str, int]:
    """Class name -> rows; looks for the images of the first rows only, and keeps none.

    Raises:
        DatasetError: as `index_table`.
    """
    place = _Place(table, manifest)
    counts: Counter[str] = Counter()
    for count, row in enumerate(_rows(place.table, manifest)):
        if count < ROWS_AT_THE_DOOR:
            place.entry(row)
        else:
            place.path(row)
        counts[row.label] += 1
    if not counts:
        raise DatasetError(f"{place.table} has no rows; write one for each image")
    return dict(sorted(counts.items()))


def starts_well(table: str, manifest: ImageManifest) -> bool:
    """Whether a table has a first row, and that row an image; looks at no other.

    Raises:
        DatasetError: as `index_table`.
    """
    place = _Place(table, manifest)
    row = next(_rows(table, manifest), None)
    return row is not None and place.entry(row).size > 0


class _Place:
    """Where the rows of a table lead: below one folder, links followed, and nowhere else."""

    def __init__(self, table: str, manifest: ImageManifest) -> None:
        self.table = table
        # Links are followed first: a link may lie where images must not be read.
        self._root = manifest.root or str(Path(table).resolve().parent)
        self._real_root = os.path.realpath(self._root)
        self._inside = (_below(self._root), _below(self._real_root))
        self._real_folder = cache(os.path.realpath)

    def where(self, row: _Row) -> str:
        """The row, for a sentence."""
        return f"{self.table}, row {row.number}"

    def path(self, row: _Row) -> str:
        """The path of the image, checked as far as its letters go.

        Raises:
            DatasetError: it leaves the root, or is no image's, or the label names no class.
        """
        where, text = self.where(row), row.path
        if not is_class_name(row.label) or row.label != row.label.strip():
            raise DatasetError(f"{where}: {_wrong_label(row.label)}")
        if not text or len(text) > _MAX_PATH or not text.isprintable():
            raise DatasetError(
                f"{where}: {text[:100]!a} is no path; write one of at most {_MAX_PATH} printable characters"
            )
        if is_uri(text) or ".." in text.split("/"):
            raise DatasetError(f"{where}: {text} leads out of {self._root}; write a path below it, without ..")
        # Not pathlib, which is far slower.
        if os.path.splitext(text)[1].lower() not in EXTENSIONS:  # noqa: PTH122  # millions of rows
            raise DatasetError(f"{where}: {text} is no {IMAGES} file; take the row out")
        path = os.path.join(self._root, os.path.normpath(text))  # noqa: PTH118  # millions of rows
        if not path.startswith(self._inside):
            raise DatasetError(f"{where}: {text} lies outside {self._root}; move it there, or name another root")
        return path

    def entry(self, row: _Row) -> Entry:
        """The image, looked for.

        Raises:
            DatasetError: as `path`, or it is missing, no file, or a link out of the root.
        """
        path = self.path(row)
        try:
            status = self._status(row, path)
        except FileNotFoundError:
            raise DatasetError(f"{self.where(row)}: there is no image {path}; add it, or take the row out") from None
        except OSError as error:
            raise DatasetError(f"{self.where(row)}: {path} cannot be read: {error.strerror or error}") from error
        if not stat.S_ISREG(status.st_mode):
            raise DatasetError(f"{self.where(row)}: {path} is not a file; take the row out")
        return Entry(
            path=path,
            offset=0,
            size=status.st_size,
            name=row.path,
            class_name=row.label,
            modified=status.st_mtime_ns,
        )

    def _status(self, row: _Row, path: str) -> os.stat_result:
        # One look at each folder and each image: following every part of every path would take ten times as long.
        folder, name = path.rsplit("/", 1)
        real = self._real_folder(folder)
        status = os.lstat(f"{real}/{name}")
        if stat.S_ISLNK(status.st_mode):
            real = os.path.realpath(f"{real}/{name}")
            status = os.stat(real)  # noqa: PTH116  # as above
        if not _below(real).startswith(self._inside[1]):
            raise DatasetError(f"{self.where(row)}: {path} is a link that leaves {self._root}; copy what it points to")
        return status


def _below(folder: str) -> str:
    """What every path below the folder begins with."""
    return f"{folder.rstrip('/')}/"


def _wrong_label(label: str) -> str:
    if not label:
        return "the label is empty; write the class, or take the row out"
    if label != label.strip():
        # It would be a class of its own beside the one without.
        return f"the label {label[:100]!a} begins or ends with a space; take the space out"
    return f"the label {label[:100]!a} is no class name; use at most {MAX_CLASS_NAME} printable characters"


def _rows(table: str, manifest: ImageManifest) -> Iterator[_Row]:
    columns = (manifest.path_column, manifest.label_column)
    kind = Path(table).suffix.lower()
    if kind not in (".csv", ".parquet"):
        raise DatasetError(f"{table} is neither a .csv nor a .parquet file; convert it, or name image_folder")
    if not Path(table).is_file():
        # Opening a pipe would wait for ever.
        raise DatasetError(f"{table} is no file; check the path", reason="DATASET_NOT_FOUND")
    try:
        _refuse_large(table, Path(table).stat().st_size)
        rows = _of_csv(table, *columns) if kind == ".csv" else _of_parquet(table, *columns)
        for count, row in enumerate(rows):
            if count == _MAX_ROWS:
                raise DatasetError(f"{table} has more than {_MAX_ROWS:,} rows; a WebDataset holds more images")
            yield row
    except OSError as error:
        raise DatasetError(f"{table} cannot be read ({error.strerror or error}); check its permissions") from error


def _refuse_large(table: str, size: int) -> None:
    if size > _MAX_BYTES:
        raise DatasetError(f"{table} has {size:,} bytes, more than {_MAX_BYTES:,}; a WebDataset holds more images")


def _of_csv(table: str, path_column: str, label_column: str) -> Iterator[_Row]:
    number = 1
    try:
        with Path(table).open("rb") as file:
            rows = csv.reader(_lines(file), strict=True)
            header = next(rows, [])
            place, label = (_column(table, header, name) for name in (path_column, label_column))
            for number, fields in enumerate(rows, start=2):
                if not fields:
                    continue
                if len(fields) != len(header):
                    raise ValueError(
                        f"has {len(fields)} fields, the header {len(header)}; put fields with commas in quotes"
                    )
                yield _Row(number=number, path=fields[place], label=fields[label])
    except UnicodeDecodeError as error:
        raise DatasetError(f"{table} is not UTF-8 after row {number}; save it as UTF-8") from error
    except csv.Error as error:
        raise DatasetError(f"{table} is no .csv after row {number} ({error}); mend it there") from error
    except ValueError as error:
        raise DatasetError(f"{table}, row {number}: {error}") from error


def _lines(file: BinaryIO) -> Iterator[str]:
    """Lines of text, each of bounded length; a byte order mark is none of it."""
    encoding = "utf-8-sig"
    while line := file.readline(_MAX_LINE + 1):
        if len(line) > _MAX_LINE:
            raise csv.Error(f"a line of more than {_MAX_LINE:,} bytes")
        yield line.decode(encoding)
        encoding = "utf-8"


def _column(table: str, header: Sequence[str], name: str) -> int:
    if (found := header.count(name)) != 1:
        has = ", ".join(shown(column[:100]) for column in header[:20]) or "none"
        what = "no column" if not found else "more than one column"
        other = len(header) == 1 and any(separator in header[0] for separator in ";\t|")
        remedy = "separate its columns by commas" if other else "set path_column and label_column"
        raise DatasetError(f"{table} has {what} {name!r}; it has {has}: {remedy}")
    return header.index(name)


def _of_parquet(table: str, path_column: str, label_column: str) -> Iterator[_Row]:
    try:
        import pyarrow
        from pyarrow import parquet
    except ModuleNotFoundError as error:
        raise DatasetError(f"{table}: .parquet needs pyarrow; pip install pyarrow, or use .csv") from error
    names, number = [path_column, label_column], 0
    try:
        _check_schema(table, parquet.read_schema(table, memory_map=False), names)
        # As dictionaries, a text that many rows share is read once.
        with parquet.ParquetFile(table, read_dictionary=names, memory_map=False) as file:
            _refuse_large(table, _uncompressed(file.metadata, names))
            for batch in file.iter_batches(_BATCH_ROWS, columns=names):
                texts = [_texts(table, number, name, batch.column(name)) for name in names]
                for path, label in zip(*texts, strict=True):
                    number += 1
                    yield _Row(number=number, path=path, label=label)
    except (pyarrow.ArrowException, OSError, UnicodeError) as error:
        told = shown(" ".join(str(error).split()))
        raise DatasetError(
            f"{table} is no readable .parquet file after row {number} ({told}); write it again"
        ) from error


def _check_schema(table: str, schema: Any, names: Sequence[str]) -> None:
    from pyarrow import types

    for name in names:
        _column(table, schema.names, name)
        kind = schema.field(name).type
        kind = kind.value_type if types.is_dictionary(kind) else kind
        if not (types.is_string(kind) or types.is_large_string(kind) or types.is_integer(kind)):
            raise DatasetError(f"{table}: column {name!r} holds {shown(str(kind))}; store text")


def _uncompressed(metadata: Any, names: Sequence[str]) -> int:
    """The bytes of some columns, decompressed, as the file tells them."""
    groups = (metadata.row_group(place) for place in range(metadata.num_row_groups))
    columns = (group.column(place) for group in groups for place in range(group.num_columns))
    return sum(column.total_uncompressed_size for column in columns if column.path_in_schema in names)


def _texts(table: str, before: int, name: str, column: Any) -> Iterator[str]:
    """The texts of one column; numbers become text."""
    is_dictionary = hasattr(column, "dictionary")
    known = (column.dictionary if is_dictionary else column).to_pylist()
    places = column.indices.to_pylist() if is_dictionary else range(len(known))
    for row, place in enumerate(places, start=before + 1):
        value = None if place is None else known[place]
        if value is None:
            raise DatasetError(f"{table}, row {row}: {name} is empty; write it, or take the row out")
        yield str(value)
