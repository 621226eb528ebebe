"""One conversation with two answers, written in each shape and file format in which such rows are found."""

import gzip
import json

import pyarrow as pa
import pyarrow.parquet as pq

FORMATS = ["rows.jsonl", "rows.json", "rows.parquet", "rows.jsonl.gz", "rows.json.gz"]


def write(path, rows):
    """Write rows in the format that the name of the file says."""
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
        return path
    is_list = ".json" in path.suffixes
    text = json.dumps(rows, indent=1) if is_list else "".join(json.dumps(row) + "\n" for row in rows)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


def _messages(system, texts):
    stated = [{"role": "system", "content": system}] if system else []
    return stated + [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(texts)]


def _sharegpt(messages):
    names = {"system": "system", "user": "human", "assistant": "gpt"}
    return [{"from": names[message["role"]], "value": message["content"]} for message in messages]


def _transcript(texts):
    return "".join(f"\n\n{('Human', 'Assistant')[i % 2]}: {text}" for i, text in enumerate(texts))


def _texts(system, asked, chosen, rejected):
    prompt = asked[0] if len(asked) == 1 else _transcript([*asked, ""])
    return {"system": system, "prompt": prompt, "chosen": chosen, "rejected": rejected}


def _group_of_texts(system, asked, chosen, rejected):
    return _texts(system, asked, chosen, rejected) | {"rejected": [rejected]}


def _conversations(system, asked, chosen, rejected):
    whole = {"chosen": _messages(system, [*asked, chosen]), "rejected": _messages(system, [*asked, rejected])}
    return whole | {"prompt": asked[0]}


def _answers_after_messages(system, asked, chosen, rejected):
    answers = {
        name: [{"role": "assistant", "content": text}] for name, text in (("chosen", chosen), ("rejected", rejected))
    }
    return answers | {"prompt": _messages(system, asked)}


def _texts_after_messages(system, asked, chosen, rejected):
    return {"prompt": _messages(system, asked), "chosen": chosen, "rejected": rejected}


def _sharegpt_pair(system, asked, chosen, rejected):
    return {
        "conversations": _sharegpt(_messages(system, asked)),
        "chosen": {"from": "gpt", "value": chosen},
        "rejected": {"from": "gpt", "value": rejected},
    }


def _multifaceted(system, asked, chosen, rejected):
    row = _conversations(None, asked, chosen, rejected)
    return row | {"system": system, "main_source": "rows", "original_source": "alpaca"}


def _hh_rlhf(system, asked, chosen, rejected):
    whole = {"chosen": _transcript([*asked, chosen]), "rejected": _transcript([*asked, rejected])}
    return whole | ({"system": system} if system else {})


SHAPES = {
    "texts": _texts,
    "group of texts": _group_of_texts,
    "whole conversations": _conversations,
    "answers after messages": _answers_after_messages,
    "texts after messages": _texts_after_messages,
    "sharegpt": _sharegpt_pair,
    "multifaceted": _multifaceted,
    "hh-rlhf": _hh_rlhf,
}
"""Shape to a function of the system message, the turns of the prompt, the chosen and the rejected answer."""
