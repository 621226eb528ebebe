"""Rows of every bench in the columns in which it is published, the texts our own; and files made of them."""

import csv
import gzip
import io
import json

import pyarrow as pa
import pyarrow.parquet as pq

RUBRIC = {"criteria": "Is it short?", "score_descriptions": {str(score): f"Worth {score}." for score in range(1, 6)}}
PREFERENCE = {"dimension": "style", "subdimension": "Tone", "preference": "dry", "description": "A dry tone."}
SCORED = {
    "toxicity": 0.1,
    "severe_toxicity": 0.1,
    "profanity": 0.1,
    "sexually_explicit": 0.1,
    "identity_attack": 0.1,
    "flirtation": None,
    "threat": 0.1,
    "insult": 0.1,
}


def multifaceted_bench(number):
    return {
        "source": "koala",
        "preference_set": [PREFERENCE],
        "system": f"You write for reader {number}.",
        "prompt": "What is rain?",
        "reference_answer": "Water.",
        "rubrics": [RUBRIC] * 4,
    }


def multifaceted_bench_before_release(number):
    row = multifaceted_bench(number)
    return {
        "id": number,
        "user_prompt": row["prompt"],
        "system_prompt": row["system"],
        "main_source": "mpa",
        "original_source": "koala",
        "reference_answer": row["reference_answer"],
        "preference": row["preference_set"],
        "rubric": row["rubrics"],
    }


def alpaca_eval(number):
    return {"dataset": "koala", "instruction": f"Count to {number}.", "output": "1", "generator": "a_model"}


def flask(number):
    return {
        "idx": number,
        "instruction": f"Count to {number}.\nInput: fast",
        "answer": "1",
        "task": "Self-instruct",
        "skill": ["Conciseness", "Readability"],
        "domain": ["Math"],
        "difficulty": "simple lifestyle knowledge",
    }


def flask_as_first_released(number):
    row = flask(number)
    return {
        "question_id": number,
        "text": row["instruction"],
        "answer": row["answer"],
        "task": row["task"],
        "metrics": row["skill"],
        "domain_labeled": row["domain"],
        "difficulty_labeled": row["difficulty"],
    }


def koala(number):
    return {"id": f"koala_{number}", "prompt": f"Name {number} rivers."}


def mt_bench(number):
    turns = [f"Draw {number} cats.", "And a dog."]
    return {"question_id": number, "category": "math", "turns": turns, "reference": ["A cat.", "A dog."]}


def self_instruct(number):
    instances = [{"input": "The sea is blue.", "output": "Blue."}]
    return {
        "id": f"user_oriented_task_{number}",
        "motivation_app": "Mail",
        "instruction": f"Shorten {number}.",
        "instances": instances,
    }


def vicuna(number):
    return {"question_id": number, "category": "generic", "turns": [f"How far is {number} miles?"]}


def arena_hard(number):
    return {"uid": f"{number:032x}", "category": "arena-hard-v0.1", "cluster": "Puzzles", "prompt": f"Solve {number}."}


def arena_hard_of_2024(number):
    row = arena_hard(number)
    return {
        "question_id": row["uid"],
        "category": row["category"],
        "cluster": row["cluster"],
        "turns": [{"content": row["prompt"]}],
    }


def real_toxicity_prompts(number):
    return {
        "filename": f"{number}.txt",
        "begin": 3,
        "end": 40,
        "challenging": False,
        "prompt": {"text": f"They said {number}", **SCORED},
        "continuation": {"text": " times.", **SCORED},
    }


def winogender(number):
    person, gender = ("customer", "someone")[number % 2], ("male", "female", "neutral")[number // 2 % 3]
    return {"sentid": f"baker.{person}.1.{gender}.txt", "sentence": f'The baker told "them" of {number}.'}


def crows_pairs(number):
    return {
        "": str(number),
        "sent_more": f"Old people forget, {number}.",
        "sent_less": f"Young people, {number}, forget.",
        "stereo_antistereo": "stereo",
        "bias_type": "age",
        "annotations": "[['age'], ['age', 'gender']]",
        "anon_writer": "a0",
        "anon_annotators": "['a1', 'a2']",
    }


def bbq(number):
    return {
        "example_id": number,
        "question_index": "1",
        "question_polarity": "neg",
        "context_condition": "ambig",
        "category": "Age",
        "answer_info": {"ans0": ["aunt", "old"], "ans1": ["niece", "nonOld"], "ans2": ["Unknown", "unknown"]},
        "additional_metadata": {"subcategory": "None", "stereotyped_groups": ["old"], "version": "a", "source": ""},
        "context": f"An aunt and a niece met {number} times.",
        "question": "Who forgot?",
        "ans0": "The aunt",
        "ans1": "The niece",
        "ans2": "Unknown",
        "label": 2,
    }


def biggen_bench(number):
    descriptions = {f"score{score}_description": f"Worth {score}." for score in range(1, 6)}
    return {
        "id": f"planning_trip_{number}",
        "capability": "planning",
        "task": "trip",
        "instance_idx": number,
        "system_prompt": "You plan trips.",
        "input": f"Plan {number} days.",
        "reference_answer": "Walk.",
        "score_rubric": {"criteria": "Is it a plan?", **descriptions},
        "response": "",
        "score": -1,
    }


LAYOUTS = {
    function.__name__: function
    for function in (
        multifaceted_bench,
        multifaceted_bench_before_release,
        alpaca_eval,
        flask,
        flask_as_first_released,
        koala,
        mt_bench,
        self_instruct,
        vicuna,
        arena_hard,
        arena_hard_of_2024,
        real_toxicity_prompts,
        winogender,
        crows_pairs,
        bbq,
        biggen_bench,
    )
}
"""Layout to a function of a number to a row; rows of different numbers (below 6) are different prompts."""
TABLES = {"winogender": "tsv", "crows_pairs": "csv"}
"""Benches that are published as tables of texts, and how."""
TEMPLATES = [
    {
        "occupation(0)": "baker",
        "other-participant(1)": "customer",
        "answer": "1",
        "sentence": "The $OCCUPATION told the $PARTICIPANT that $NOM_PRONOUN could pay.",
    }
]
STATISTICS = [{"occupation": "baker", "bergsma_pct_female": "9.42", "bls_pct_female": "40.34", "bls_year": "2015"}]


def bench_of(layout):
    """The name of the bench that has this layout."""
    return layout.removesuffix("_before_release").removesuffix("_as_first_released").removesuffix("_of_2024")


def write_table(path, rows):
    """A CSV or a TSV, as the name says, gzipped or not."""
    tabs = ".tsv" in path.suffixes
    stream = io.StringIO(newline="")
    names = list(dict.fromkeys(name for row in rows for name in row))
    quoting = {"quoting": csv.QUOTE_NONE, "quotechar": None, "delimiter": "\t"} if tabs else {}
    writer = csv.DictWriter(stream, names, lineterminator="\n", **quoting)
    writer.writeheader()
    writer.writerows(rows)
    content = stream.getvalue().encode()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


def write_bench(folder, layout, rows, *, packed=False):
    """A file of a bench, or what goes for one, in the format in which it is published."""
    end = ".gz" if packed else ""
    if layout == "winogender":
        write_table(folder / f"templates.tsv{end}", TEMPLATES)
        write_table(folder / f"occupations-stats.tsv{end}", STATISTICS)
        write_table(folder / f"all_sentences.tsv{end}", rows)
        return folder
    if layout in TABLES:
        return write_table(folder / f"rows.{TABLES[layout]}{end}", rows)
    if layout == "biggen_bench":
        content = json.dumps({f"key_{place}": row for place, row in enumerate(rows)})
    elif layout == "alpaca_eval":
        content = json.dumps(rows)
    else:
        content = "".join(json.dumps(row) + "\n" for row in rows)
    suffix = "json" if layout in ("biggen_bench", "alpaca_eval") else "jsonl"
    path = folder / f"rows.{suffix}{end}"
    path.write_bytes(gzip.compress(content.encode()) if packed else content.encode())
    return path


def write_parquet(folder, rows):
    """The same as Parquet."""
    pq.write_table(pa.Table.from_pylist(rows), folder / "rows.parquet")
    return folder / "rows.parquet"
