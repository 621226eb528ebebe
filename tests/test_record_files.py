"""Records as they are read back: whole, or refused by their line."""

import json

import pytest

from multifaceted.record_files import RecordError, read_records, read_responses, write_jsonl
from multifaceted.records import Likelihood, PairRewards, Response, Sample

RECORDS = [
    Likelihood(id="a", logp=-1.5, tokens=3),
    Sample(id="a", sample=1, text="So.", finished=True, reward=0.5),
    PairRewards(id="a", source="s", contrast=["style"], prompt="p", chosen=1.0, rejected=[0.0, 2.0]),
    Response(id="a", text="So.", finished=False, follow_ups=["Then."]),
]


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: type(record).__name__)
def test_records_are_read_back_as_they_were_and_others_are_refused_by_line(record, tmp_path):
    path = tmp_path / "records.jsonl"
    write_jsonl(path, [record, record])
    assert read_records(path, type(record)) == [record, record]
    for broken in ({"id": "a"}, {**json.loads(path.read_text().splitlines()[0]), "mood": "fine"}):
        with path.open("a") as stream:
            stream.write(json.dumps(broken) + "\n")
        with pytest.raises(RecordError, match=rf"line 3: not a {type(record).__name__.lower()} \("):
            read_records(path, type(record))
        write_jsonl(path, [record, record])


def test_responses_are_found_by_id(tmp_path):
    write_jsonl(tmp_path / "r.jsonl", [Response(id=name, text=name, finished=True) for name in "ab"])
    assert {name: response.text for name, response in read_responses(tmp_path / "r.jsonl").items()} == dict(
        a="a", b="b"
    )
