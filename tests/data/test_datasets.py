"""Data sets as sources: in memory, as a stream, saved on disk, as a file, and from a stand-in for the hub."""

import io
import json
import os
import re
import subprocess
import sys
from collections import Counter
from dataclasses import asdict
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from multifaceted.config import build
from multifaceted.data import dataset, examples, preference_files, reading
from multifaceted.data.bad_rows import BadRows, DataError, OnBadRow
from multifaceted.data.dataset import Data
from multifaceted.data.locations import locate
from multifaceted.data.mix import Mix
from multifaceted.data.preference_files import PreferenceFiles
from multifaceted.data.reading import read_rows
from tests.data.collections.sets import SETS
from tests.data.shapes import SHAPES
from tests.hub import running_hub

ROWS = [{"system": f"Be {i}.", "prompt": f"Why {i}?", "chosen": "Rain.", "rejected": "No."} for i in range(40)]
HELD_OUT = [row | {"prompt": f"When {i}?"} for i, row in enumerate(ROWS[:5])]
SPLITS = {"train": ROWS, "validation": HELD_OUT}


def in_memory(rows):
    return datasets.Dataset.from_list(rows)


def as_stream(rows):
    return datasets.IterableDataset.from_generator(lambda: iter(rows))


def as_parquet(rows, folder):
    pq.write_table(pa.Table.from_pylist(rows), folder / "rows.parquet")
    return folder / "rows.parquet"


def as_arrow_stream(rows, folder):
    table = pa.Table.from_pylist(rows)
    with pa.OSFile(str(folder / "rows.arrow"), "wb") as file, pa.ipc.new_stream(file, table.schema) as writer:
        writer.write_table(table)
    return folder / "rows.arrow"


def as_arrow_file(rows, folder):
    table = pa.Table.from_pylist(rows)
    with pa.OSFile(str(folder / "rows.arrow"), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table)
    return folder / "rows.arrow"


def as_saved(rows, folder):
    in_memory(rows).save_to_disk(str(folder / "saved"))
    return folder / "saved"


FORMS = {
    "in memory": lambda rows, _: in_memory(rows),
    "torch format": lambda rows, _: in_memory(rows).with_format("torch"),
    "selected": lambda rows, _: in_memory(rows[::-1]).select(range(len(rows))[::-1]),
    "stream": lambda rows, _: as_stream(rows),
    "Parquet": as_parquet,
    "Arrow stream": as_arrow_stream,
    "Arrow file": as_arrow_file,
    "saved": as_saved,
}


def parts_of(source, cache=None):
    train, held_out = Data(source=source, max_length=99).examples(Mix(), 0, needs_rejected=True, cache=cache)
    return [(e.system, e.turns[0].content, e.chosen) for e in train.examples], len(held_out.examples)


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_rows_of_a_text_file(form, tmp_path):
    expected = parts_of(PreferenceFiles(train_file=_jsonl(tmp_path, ROWS), validation_share=0.2))
    location = FORMS[form](ROWS, tmp_path)
    assert parts_of(PreferenceFiles(train_file=location, validation_share=0.2), tmp_path / "cache") == expected


def _jsonl(folder, rows):
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.parametrize("form", ["in memory", "Parquet", "saved"])
@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape_of_a_row_is_read_from_a_table(form, shape, tmp_path):
    row = SHAPES[shape]("Be kind.", ["Hi.", "Hello.", "Why?"][-1:], "Because.", "No.")
    source = PreferenceFiles(train_file=FORMS[form]([row], tmp_path))
    (example,) = list(source.train(0, BadRows()))
    assert (example.system, example.turns[-1].content, example.chosen, example.rejected) == (
        "Be kind.",
        "Why?",
        "Because.",
        ["No."],
    )


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", SETS)
def test_a_collection_reads_its_own_columns_from_any_form(name, form, tmp_path):
    published = SETS[name]

    def read(location):
        reader = published.source(train_file=location, validation_share=1e-9, **published.settings)
        bad = BadRows(policy=OnBadRow.DROP)
        examples = [asdict(example) | {"id": "", "source": ""} for example in reader.train(0, bad)]
        return examples, bad.counts

    expected = read(_jsonl(tmp_path, published.rows))
    assert expected[0] and read(FORMS[form](published.rows, tmp_path)) == expected


def test_several_data_sets_in_memory_lose_no_row():
    first, second = in_memory(ROWS[:15]), in_memory(ROWS[15:])
    train, held_out = parts_of(PreferenceFiles(train_file=[first, second], validation_share=0.2))
    assert len(train) + held_out == 40
    train, held_out = parts_of(PreferenceFiles(train_file=first, validation_file=second))
    assert (len(train), held_out) == (15, 25)


@pytest.mark.parametrize("has_validation_file", [False, True])
def test_an_example_is_checked_and_hashed_once(has_validation_file, tmp_path, monkeypatch):
    calls = Counter()
    for module, name in [(preference_files, "check_example"), (dataset, "check_example"), (examples, "_row")]:
        real = getattr(module, name)
        monkeypatch.setattr(module, name, lambda example, real=real, name=name: calls.update([name]) or real(example))
    validation = in_memory(HELD_OUT) if has_validation_file else None
    source = PreferenceFiles(train_file=_jsonl(tmp_path, ROWS), validation_file=validation, validation_share=0.2)
    Data(source=source, max_length=99).examples(Mix(), 0, needs_rejected=True, cache=tmp_path)
    number = len(ROWS) + (len(HELD_OUT) if has_validation_file else 0)
    assert calls == {"check_example": number, "_row": number}


def test_who_only_validates_needs_no_split_to_train_on():
    sets = datasets.DatasetDict({"validation": in_memory(HELD_OUT)})
    source = PreferenceFiles(train_file=Path("nowhere.jsonl"), validation_file=sets)
    assert len(Data(source=source, max_length=99).held_out(0, option="on_bad_row").examples) == 5


@pytest.mark.parametrize("is_folder", [False, True])
def test_files_have_no_splits(is_folder, tmp_path):
    path = as_parquet(ROWS, tmp_path)
    with pytest.raises(DataError, match=r"which has no splits; name the files that you mean"):
        locate(Path(f"{path.parent if is_folder else path}:test"))


@pytest.mark.parametrize("fault", ["snappy", "cut stream", "map column", "colons"])
def test_a_table_that_cannot_be_read_is_named(fault, tmp_path):
    if fault == "snappy":
        path = as_parquet(ROWS, tmp_path)
        content = bytearray(path.read_bytes())
        content[20:400] = bytes(380)
        path.write_bytes(content)
    elif fault == "cut stream":
        path = as_arrow_stream(ROWS * 50, tmp_path)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    elif fault == "map column":
        table = pa.table({"prompt": ["Why?"], "other": pa.array([[("a", 1)]], pa.map_(pa.string(), pa.int64()))})
        path = tmp_path / "rows.parquet"
        pq.write_table(table, path)
    else:
        path = as_parquet(ROWS, tmp_path).rename(tmp_path / "a::b.parquet")
    with pytest.raises(DataError, match=re.escape(path.name)):
        list(read_rows(path, BadRows()))


def test_tables_are_read_where_the_cache_of_datasets_cannot_be_written(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", Path("/proc/nowhere"))
    assert len(list(read_rows(as_parquet(ROWS, tmp_path), BadRows()))) == 40


def test_a_table_without_rows_is_empty_and_a_path_may_be_a_text(tmp_path):
    pq.write_table(pa.table({"prompt": pa.array([], pa.string())}), tmp_path / "rows.parquet")
    (rows,) = locate(str(tmp_path / "rows.parquet")).values()
    assert list(read_rows(rows, BadRows())) == []
    with pytest.raises(DataError, match="is a int; expected a path"):
        locate(5)


@pytest.mark.parametrize("column", ["id", "main_source"])
def test_half_a_character_in_a_name_is_a_bad_row(column, tmp_path):
    path = _jsonl(tmp_path, [*ROWS, ROWS[0] | {column: chr(0xD800)}])
    bad = BadRows(policy=OnBadRow.DROP)
    assert len(list(PreferenceFiles(train_file=path, validation_share=1e-9).train(0, bad))) == 40
    assert bad.counts == {"wrong_encoding": 1}


@pytest.mark.parametrize("is_saved", [False, True])
def test_splits_are_meant_by_the_setting_or_named(is_saved, tmp_path):
    sets = datasets.DatasetDict({name: in_memory(rows) for name, rows in SPLITS.items()})
    sets.save_to_disk(str(tmp_path / "sets"))
    location = tmp_path / "sets" if is_saved else sets
    train, held_out = parts_of(PreferenceFiles(train_file=location, validation_file=location))
    assert len(train) == 40 and held_out == 5
    remedy = "Name one of them: bench=" if is_saved else r"Take one of them: dataset\['train'\]"
    with pytest.raises(DataError, match=rf"has no split 'test'; its splits are train, validation\. {remedy}"):
        locate(location, "bench", split="test")
    if is_saved:
        (rows,) = locate(Path(f"{location}:validation")).values()
        assert len(list(read_rows(rows, BadRows()))) == 5
        with pytest.raises(DataError, match="no split 'dev'; its splits are train, validation"):
            locate(Path(f"{location}:dev"))
        with pytest.raises(DataError, match=r"this data set has no splits; set .*train_file=.*saved$"):
            locate(Path(f"{as_saved(ROWS, tmp_path)}:dev"))


def test_streams_that_do_not_end_are_refused(monkeypatch):
    with pytest.raises(DataError, match=r"data.source.train_file is a stream that repeats itself for ever"):
        PreferenceFiles(train_file=as_stream(ROWS).repeat(None)).require_files()
    PreferenceFiles(train_file=as_stream(ROWS).repeat(2)).require_files()
    PreferenceFiles(train_file=as_stream(ROWS).repeat(None).take(7)).require_files()
    monkeypatch.setattr(reading, "MAX_STREAMED", 2000)

    def endless():
        number = 0
        while True:
            number += 1
            yield ROWS[0] | {"id": number}

    stream = datasets.IterableDataset.from_generator(endless)
    with pytest.raises(DataError, match="is a stream that has not ended after 2,048 rows; take a part of it"):
        list(PreferenceFiles(train_file=stream).train(0, BadRows()))
    part = PreferenceFiles(train_file=stream, max_examples=30, validation_file=in_memory(HELD_OUT))
    assert len(list(part.train(0, BadRows()))) == 30


@pytest.mark.parametrize(
    ("row", "reason", "message"),
    [
        (
            {"prompt": {"text": "Why?"}},
            "wrong_type",
            r"prompt is \{'text': 'Why\?'\}, a dict; expected a text or a list",
        ),
        ({"chosen": None}, "missing_column", "no chosen"),
    ],
)
def test_a_bad_row_of_a_table_is_named_or_counted(row, reason, message, tmp_path):
    for location in (in_memory([ROWS[0] | row]), as_parquet([ROWS[0] | row], tmp_path)):
        with pytest.raises(DataError, match=f"row 1: {message}"):
            list(PreferenceFiles(train_file=location).train(0, BadRows()))
        bad = BadRows(policy=OnBadRow.DROP)
        assert not list(PreferenceFiles(train_file=location).train(0, bad)) and bad.counts == {reason: 1}


def test_a_folder_of_another_version_says_what_to_do(tmp_path):
    folder = as_saved(ROWS, tmp_path)
    info = folder / "dataset_info.json"
    info.write_text(info.read_text().replace('"Value"', '"ValueOfTomorrow"'))
    with pytest.raises(DataError, match=r"saved was written by save_to_disk, and datasets 5.* as Parquet"):
        locate(folder)


def test_a_cache_that_cannot_be_written_costs_no_row(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr("multifaceted.data.examples.store_examples.__kwdefaults__", {"in_memory": 3})
    (tmp_path / "datasets").write_text("a file where the folder goes")
    source = PreferenceFiles(train_file=in_memory(ROWS), validation_share=0.2)
    assert parts_of(source, tmp_path) == parts_of(source)
    assert "examples are read into memory, because" in caplog.text


def test_a_config_names_paths_and_nothing_else():
    node = {"_target_": "multifaceted.data.preference_files.PreferenceFiles", "train_file": "someone/rain@v1:test"}
    assert build({"source": node, "max_length": 9}, Data).source.train_file == Path("someone/rain@v1:test")
    with pytest.raises(ValueError, match="train_file"):
        build({"source": node | {"train_file": 5}, "max_length": 9}, Data)


READ = """
import sys
from pathlib import Path
from multifaceted.data.bad_rows import BadRows
from multifaceted.data.locations import locate
from multifaceted.data.reading import read_rows
for name in sys.argv[1:]:
    try:
        (found,) = locate(Path(name)).items()
        print(found[0], len(list(read_rows(found[1], BadRows()))), found[1])
    except ValueError as error:
        print(type(error).__name__, error)
"""


def parquet(rows):
    stream = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), stream)
    return stream.getvalue()


def read_in_a_process(names, env, home):
    env = os.environ | env | {"HF_HOME": str(home)}
    done = subprocess.run([sys.executable, "-c", READ, *names], env=env, capture_output=True, text=True, check=True)
    return dict(zip(names, done.stdout.splitlines(), strict=True))


def test_data_sets_of_the_hub(tmp_path):
    with running_hub() as (hub, env):
        hub.repositories["datasets", "someone/rain"] = {
            "data/train-00000-of-00001.parquet": parquet(ROWS),
            "data/test-00000-of-00001.parquet": parquet(HELD_OUT),
        }
        hub.repositories["datasets", "someone/code"] = {"code.py": b"print(1)\n"}
        hub.repositories["datasets", "someone/mixed"] = {"data/train.jsonl": b'{"prompt": "a"}\n{oops\n'}
        expected = {
            "someone/rain": "rain 40 someone/rain:train",
            "someone/rain@main:test": "rain 5 someone/rain@main:test",
            "someone/rain:dev": "DataError data.source.train_file: someone/rain has no split 'dev'; its splits are",
            "someone/rain@v9": "DataError the hub's data set someone/rain cannot be had: Revision 'v9' doesn't exist",
            "someone/rain/other": "DataError data.source.train_file=someone/rain: BuilderConfig 'other' not found.",
            "someone/code": "DataError data.source.train_file=someone/code: it is made by code of its own",
            "someone/mixed": "DataError data.source.train_file=someone/mixed: datasets cannot read its",
            "hf://datasets/someone/mixed": "DataError ",
            "someone/absent": "DataError the hub's data set someone/absent cannot be had: Dataset 'someone/absent'",
        }
        found = read_in_a_process(list(expected), env, tmp_path)
        for name, begins in expected.items():
            assert found[name].startswith(begins)
        assert "train.jsonl, line 2: not JSON" in found["hf://datasets/someone/mixed"]
    offline = read_in_a_process(["someone/rain", "someone/never"], {"HF_HUB_OFFLINE": "1"}, tmp_path)
    assert offline["someone/rain"] == "rain 40 someone/rain:train", "what was downloaded once is read without network"
    assert "hf download someone/never --repo-type dataset --local-dir FOLDER" in offline["someone/never"]
