"""Files to rows: every format, told apart by content, and what is said of files that cannot be read."""

import gzip
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from multifaceted.data.bad_rows import BadRows, DataError, OnBadRow
from multifaceted.data.blend import Blend
from multifaceted.data.locations import locate, stem_of
from multifaceted.data.preference_files import PreferenceFiles
from multifaceted.data.reading import read_rows
from tests.data.shapes import FORMATS, write

ROWS = [{"prompt": "What is rain?", "chosen": "Water."}, {"prompt": "Naïve, 雨?", "chosen": "Tears.\n\nOf gods."}]


def read(path, policy=OnBadRow.RAISE):
    bad = BadRows(policy=policy)
    return [(row.number, row.value) for row in read_rows(path, bad)], bad


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_gives_the_same_rows(tmp_path, name):
    path = write(tmp_path / name, ROWS)
    assert read(path)[0] == list(enumerate(ROWS, start=1))
    assert stem_of(path) == "rows"


@pytest.mark.parametrize("name", FORMATS)
def test_the_content_counts_and_not_the_name(tmp_path, name):
    path = write(tmp_path / name, ROWS)
    for other in ("rows", "rows.txt", "rows.jsonl"):
        assert read(path.rename(tmp_path / other))[0] == list(enumerate(ROWS, start=1))
        path = tmp_path / other


def test_json_lines_under_the_name_json_with_a_mark_and_blank_lines(tmp_path):
    path = tmp_path / "rows.json"
    path.write_bytes(b"\xef\xbb\xbf" + b"\r\n \r\n".join(json.dumps(row).encode() for row in ROWS))
    assert read(path)[0] == [(1, ROWS[0]), (3, ROWS[1])]


@pytest.mark.parametrize(
    ("line", "reason", "message"),
    [
        (b"{oops", "not_json", r"rows.jsonl, line 2: not JSON \(Expecting property name"),
        (b"[" * 100_000, "not_json", "line 2: not JSON"),
        ('{"prompt": "naïve"}'.encode("latin-1"), "wrong_encoding", "line 2: byte 0xef is not UTF-8; convert the file"),
    ],
)
@pytest.mark.parametrize("packed", [False, True])
def test_a_line_that_cannot_be_read_is_named_or_counted(tmp_path, line, reason, message, packed):
    path = tmp_path / "rows.jsonl"
    content = b'{"prompt": "a"}\n' + line + b'\n{"prompt": "b"}\n'
    path.write_bytes(gzip.compress(content) if packed else content)
    with pytest.raises(DataError, match=message):
        read(path)
    rows, bad = read(path, OnBadRow.DROP)
    assert [number for number, _ in rows] == [1, 3] and bad.counts == {reason: 1}


def test_a_cell_of_a_table_that_is_not_utf8_is_named_or_counted(tmp_path):
    offsets, content = pa.py_buffer(bytes(4) + b"\1\0\0\0" + b"\2\0\0\0"), pa.py_buffer(b"a\xff")
    cells = pa.Array.from_buffers(pa.string(), 2, [None, offsets, content])
    pq.write_table(pa.table({"prompt": cells}), tmp_path / "rows.parquet")
    with pytest.raises(DataError, match=r"rows.parquet, row 2: byte 0xff is not UTF-8"):
        read(tmp_path / "rows.parquet")
    rows, bad = read(tmp_path / "rows.parquet", OnBadRow.DROP)
    assert rows == [(1, {"prompt": "a"})] and bad.counts == {"wrong_encoding": 1}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "a.json",
            b'{"train": [{"prompt": "a"}]}',
            "a.json: the top level is a dict with the keys train; expected a list",
        ),
        ("a.json", b'"text"', "the top level is a str"),
        ("a.json", b'[{"prompt": "a"},\n{"prompt": }]', "a.json, line 2: the list is not JSON .Expecting value"),
        ("a.json", b'[{"prompt": "a"},\n{"prompt": "\xff"}]', "a.json, line 2: byte 0xff is not UTF-8"),
        ("a.jsonl.gz", gzip.compress(b'{"prompt": "a"}\n' * 99)[:-12], "a.jsonl.gz is truncated or damaged"),
        ("a.jsonl.gz", b"\x1f\x8b" + bytes(40), "a.jsonl.gz is truncated or damaged"),
        ("a.parquet", b"PAR1" + bytes(40), "a.parquet is truncated or damaged"),
    ],
)
@pytest.mark.parametrize("policy", OnBadRow)
def test_a_file_that_cannot_be_read_is_an_error_under_either_policy(tmp_path, name, content, message, policy):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message):
        read(tmp_path / name, policy)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(DataError, match=r"a.jsonl does not exist"):
        read(tmp_path / "a.jsonl")


def test_a_folder_means_its_data_files(tmp_path):
    with pytest.raises(DataError, match="holds no data files"):
        locate(tmp_path)
    (tmp_path / "data").mkdir()
    for name in ("README.md", "dataset_infos.json", "b.jsonl", "c.json", "data/a.parquet"):
        (tmp_path / name).write_text("{}")
    found = {"b": tmp_path / "b.jsonl", "c": tmp_path / "c.json", "data/a": tmp_path / "data" / "a.parquet"}
    assert locate(tmp_path) == found
    assert locate(tmp_path / "README.md") == {"README": tmp_path / "README.md"}
    (tmp_path / "table.csv.gz").write_bytes(gzip.compress(b"prompt\na\n"))
    assert locate(tmp_path) == found | {"table": tmp_path / "table.csv.gz"}
    (tmp_path / "b.json").write_text("[]")
    with pytest.raises(DataError, match="differ in their format only"):
        locate(tmp_path)


TABLES = {"rows.csv": 'prompt,note\n"Say ""hi"",\nthen go.",\n"",x\n', "rows.tsv": 'prompt\tnote\n"hi\t\n\tx\n'}
TEXTS = {"rows.csv": 'Say "hi",\nthen go.', "rows.tsv": '"hi'}


@pytest.mark.parametrize("name", TABLES)
@pytest.mark.parametrize("packed", [False, True])
def test_tables_of_text_have_names_in_their_first_line(tmp_path, name, packed):
    path = tmp_path / (f"{name}.gz" if packed else name)
    content = b"\xef\xbb\xbf" + TABLES[name].encode()
    path.write_bytes(gzip.compress(content) if packed else content)
    rows, _ = read(path)
    assert [value for _, value in rows] == [{"prompt": TEXTS[name], "note": ""}, {"prompt": "", "note": "x"}]
    assert [number for number, _ in rows] == ([3, 4] if name == "rows.csv" else [2, 3]), "the line where a row ends"


@pytest.mark.parametrize(
    ("line", "reason", "message"),
    [
        (b"a,b,c", "wrong_width", "rows.csv, line 3: 3 cells for the 2 columns of the first line"),
        (b"a", "wrong_width", "1 cells for the 2 columns"),
        ("naïve,b".encode("latin-1"), "wrong_encoding", "line 3: byte 0xef is not UTF-8"),
    ],
)
def test_a_line_of_a_table_that_cannot_be_read_is_named_or_counted(tmp_path, line, reason, message):
    path = tmp_path / "rows.csv"
    path.write_bytes(b"prompt,note\na,b\n" + line + b"\n\nc,d\n")
    with pytest.raises(DataError, match=message):
        read(path)
    rows, bad = read(path, OnBadRow.DROP)
    assert [value["prompt"] for _, value in rows] == ["a", "c"] and bad.counts == {reason: 1}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'prompt,note\n"a,b\nc,d\n', "rows.csv, line 3: unexpected end of data; mend it"),
        (b"prompt,prompt\na,b\n", "rows.csv: the first line names a column twice: prompt, prompt"),
    ],
)
@pytest.mark.parametrize("policy", OnBadRow)
def test_a_table_that_cannot_be_told_into_rows_is_an_error(tmp_path, content, message, policy):
    (tmp_path / "rows.csv").write_bytes(content)
    with pytest.raises(DataError, match=message):
        read(tmp_path / "rows.csv", policy)


def test_a_cell_of_ten_megabytes_is_a_cell(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text(f"prompt,note\n{'x' * 10_000_000},a\n")
    rows, _ = read(path)
    assert len(rows[0][1]["prompt"]) == 10_000_000


def test_a_table_in_another_encoding_is_said_to_be_one(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_bytes("prompt,note\na,b\n".encode("utf-16"))
    with pytest.raises(DataError, match=r"rows.csv, line 1: byte 0xff is not UTF-8; convert the file"):
        read(path, OnBadRow.DROP)


def test_an_object_holds_rows_only_where_that_is_expected(tmp_path):
    path = tmp_path / "rows.json"
    path.write_text(json.dumps({f"key_{place}": row for place, row in enumerate(ROWS)}))
    with pytest.raises(DataError, match="the top level is a dict with the keys key_0, key_1; expected a list"):
        read(path)
    rows = list(read_rows(path, BadRows(), keyed=True))
    assert [row.value for row in rows] == ROWS and rows[1].where == f"{path}, key 'key_1'"
    path.write_text(json.dumps(ROWS))
    assert [row.value for row in read_rows(path, BadRows(), keyed=True)] == ROWS


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A data set in the hub's cache, as a download leaves it: `hub("a/b", ["data/x.jsonl"], "main")`."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))

    def cached(name, files, revision="main"):
        folder = tmp_path / "cache" / f"datasets--{name.replace('/', '--')}"
        (folder / "refs" / revision).parent.mkdir(parents=True, exist_ok=True)
        (folder / "refs" / revision).write_text("0123")
        for file in files:
            path = folder / "snapshots" / "0123" / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("{}\n")

    return cached


SPLITS = ["README.md", "data/train-00000-of-00001.parquet", "data/test-00000-of-00001.parquet", "extra/all.jsonl.gz"]


@pytest.mark.parametrize(
    ("within", "expected"),
    [
        ("", {"data/train-00000-of-00001", "data/test-00000-of-00001", "extra/all"}),
        ("/data", {"data/train-00000-of-00001", "data/test-00000-of-00001"}),
        ("/data/train-*", {"data/train-00000-of-00001"}),
        ("/*/t*", {"data/train-00000-of-00001", "data/test-00000-of-00001"}),
        ("/extra/all.jsonl.gz", {"extra/all"}),
    ],
)
def test_parts_of_a_data_set_and_of_a_folder_are_named_alike(hub, tmp_path, within, expected):
    hub("someone/rain", SPLITS)
    assert set(locate(Path(f"hf://datasets/someone/rain{within}"))) == expected
    local = tmp_path / "cache" / "datasets--someone--rain" / "snapshots" / "0123"
    if "*" in within:
        below = {name.rpartition("/")[2] for name in locate(Path(f"{local}{within}"))}
        assert below == {name.rpartition("/")[2] for name in expected}


@pytest.mark.parametrize("revision", ["v1", "refs/convert/parquet"])
def test_a_revision_may_be_named(hub, revision):
    hub("someone/rain", ["default/train/0000.parquet"], revision)
    for within in ("", "/default/train"):
        assert set(locate(Path(f"hf://datasets/someone/rain@{revision}{within}"))) == {"default/train/0000"}


def test_a_data_set_that_cannot_be_had_is_named_with_what_to_do():
    with pytest.raises(DataError) as refusal:
        locate(Path("hf://datasets/someone/nothing@main/data/train-*"), "data.source.sources.rain.train_file")
    said = str(refusal.value)
    assert said.startswith("the hub's data set someone/nothing cannot be had: ")
    command = (
        "hf download someone/nothing --repo-type dataset --revision main --include 'data/train-*' --local-dir FOLDER"
    )
    assert command in said
    assert said.endswith("here, data.source.sources.rain.train_file=FOLDER/data/train-*")


def test_names_that_no_data_set_has(hub):
    with pytest.raises(DataError, match=r"data.source.join=hf://datasets/rain: expected hf://datasets/<owner>/<name>"):
        locate(Path("hf://datasets/rain"), "data.source.join")
    hub("someone/rain", SPLITS)
    with pytest.raises(
        DataError, match=r"holds no data files \(dat/\*, dat/\*/\*\); name a folder or a file with rows"
    ):
        locate(Path("hf://datasets/someone/rain/dat/*"))


def test_a_blend_says_which_of_its_sources_lacks_files():
    rain = PreferenceFiles(train_file=Path("hf://datasets/someone/nothing"))
    blend = Blend(sources={"rain": rain}, weights={"rain": 1}, num_examples=1)
    with pytest.raises(DataError, match=r"here, data.source.sources.rain.train_file=FOLDER$"):
        list(blend.train(0, BadRows()))
