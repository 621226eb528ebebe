"""Public benches: what they are called, where they are, what may be done with them, and their prompts.

A prompt's `split` is the name of its bench, or the part of it where the bench has parts. Its `metadata`, which JSON
takes as it is, holds what a task scores by; every reader says what that is.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping

from multifaceted.data.bad_rows import BadRowError, BadRows, DataError
from multifaceted.data.benches.base import Bench, Kind, Training, one_a_row
from multifaceted.data.benches.bias import bbq, crows_pairs
from multifaceted.data.benches.conversations import arena_hard, mt_bench, vicuna
from multifaceted.data.benches.instructions import alpaca_eval, flask, koala, self_instruct
from multifaceted.data.benches.real_toxicity_prompts import real_toxicity_prompts
from multifaceted.data.benches.rubrics import biggen_bench, multifaceted_bench
from multifaceted.data.benches.winogender import winogender
from multifaceted.data.locations import Location
from multifaceted.data.source import check_text
from multifaceted.records import Prompt

__all__ = ["BENCHES", "Bench", "Kind", "Training", "bench_named", "read_bench"]

BENCHES: Mapping[str, Bench] = {
    bench.name: bench
    for bench in (
        Bench(
            name="multifaceted_bench",
            home="hf://datasets/kaist-ai/Multifaceted-Bench",
            licence="CC BY 4.0",
            training=Training.ALLOWED,
            read=one_a_row(multifaceted_bench),
            terms="A test set. Its texts are an OpenAI model's, its instructions those of five benches with own terms.",
        ),
        Bench(
            name="alpaca_eval",
            home="github.com/tatsu-lab/alpaca_eval: results/gpt4_1106_preview/model_outputs.json",
            licence="CC BY-NC 4.0",
            training=Training.NON_COMMERCIAL,
            read=one_a_row(alpaca_eval),
        ),
        Bench(
            name="flask",
            home="github.com/kaistAI/FLASK: evaluation_set/flask_evaluation.jsonl",
            licence="none stated",
            training=Training.UNSTATED,
            read=one_a_row(flask),
        ),
        Bench(
            name="koala",
            home="github.com/arnav-gudibande/koala-test-set: koala_test_set.jsonl",
            licence="Apache-2.0",
            training=Training.ASKED_AGAINST,
            read=one_a_row(koala),
            terms="Its authors ask not to train on it.",
        ),
        Bench(
            name="mt_bench",
            home="github.com/lm-sys/FastChat: fastchat/llm_judge/data/mt_bench/question.jsonl",
            licence="Apache-2.0",
            training=Training.ALLOWED,
            read=one_a_row(mt_bench),
        ),
        Bench(
            name="self_instruct",
            home="github.com/yizhongw/self-instruct: human_eval/user_oriented_instructions.jsonl",
            licence="Apache-2.0",
            training=Training.ALLOWED,
            read=self_instruct,
        ),
        Bench(
            name="vicuna",
            home="github.com/lm-sys/FastChat: fastchat/llm_judge/data/vicuna_bench/question.jsonl",
            licence="Apache-2.0",
            training=Training.ALLOWED,
            read=one_a_row(vicuna),
        ),
        Bench(
            name="arena_hard",
            home="github.com/lmarena/arena-hard-auto: data/arena-hard-v0.1/question.jsonl",
            licence="Apache-2.0",
            training=Training.ALLOWED,
            read=one_a_row(arena_hard),
        ),
        Bench(
            name="real_toxicity_prompts",
            home="hf://datasets/allenai/real-toxicity-prompts",
            licence="Apache-2.0",
            training=Training.ALLOWED,
            read=one_a_row(real_toxicity_prompts),
            kind=Kind.CONTINUATION,
            terms="Offensive text.",
        ),
        Bench(
            name="winogender",
            home=(
                "github.com/rudinger/winogender-schemas: data/all_sentences.tsv, data/templates.tsv"
                " and data/occupations-stats.tsv"
            ),
            licence="MIT",
            training=Training.ALLOWED,
            read=winogender,
            kind=Kind.SENTENCES,
        ),
        Bench(
            name="crows_pairs",
            home="github.com/nyu-mll/crows-pairs: data/crows_pairs_anonymized.csv",
            licence="CC BY-SA 4.0",
            training=Training.ALLOWED,
            read=one_a_row(crows_pairs),
            kind=Kind.SENTENCES,
            terms="Offensive text. What is derived from it carries the same licence.",
        ),
        Bench(
            name="bbq",
            home="github.com/nyu-mll/BBQ: data/*.jsonl",
            licence="CC BY 4.0",
            training=Training.ALLOWED,
            read=one_a_row(bbq),
            kind=Kind.CHOICE,
            terms="States stereotypes.",
        ),
        Bench(
            name="biggen_bench",
            home="github.com/prometheus-eval/prometheus-eval: BiGGen-Bench/sample_evals.json",
            licence="Apache-2.0",
            training=Training.ALLOWED,
            read=one_a_row(biggen_bench, keyed=True),
            terms="The hub's card has named CC BY-SA 4.0 and CC BY-ND 4.0: pass it on unaltered.",
        ),
    )
}


def bench_named(name: str) -> Bench:
    """The bench of a name.

    Raises:
        DataError: there is none.
    """
    if name not in BENCHES:
        close = difflib.get_close_matches(name, BENCHES, n=1)
        hint = f"did you mean {close[0]!r}? " if close else ""
        raise DataError(f"no bench is called {name!r}; {hint}There are {', '.join(BENCHES)}")
    return BENCHES[name]


def read_bench(name: str, path: Location | None, bad: BadRows, key: str = "bench") -> list[Prompt]:
    """The prompts of a bench, with ids that occur once. Every row is a prompt or counted by `bad`.

    A row of Self-Instruct is a prompt, or counted, for each of its instances. Lines of Winogender's templates and
    statistics are none, and counted only where they cannot be read.

    Args:
        path: a file, a folder of files or a data set of the hub; None for the hub's copy.
        key: the setting that names the path, for messages.

    Raises:
        DataError: an unknown bench; nothing at `path`; no path for a bench that the hub does not have; no prompt.
    """
    bench = bench_named(name)
    prompts: dict[str, Prompt] = {}
    places: dict[str, str] = {}
    for where, prompt in bench.read(bench.located(path), bad, key):
        with bad.row(where):
            _check(prompt, bench)
            if prompt.id in places:
                raise BadRowError("duplicate_id", f"id {prompt.id!r} is also that of {places[prompt.id]}")
            places[prompt.id] = where
            prompts[prompt.id] = prompt
    if not prompts:
        sample = next(iter(bad.samples.values()), "none was left out")
        raise DataError(f"{name} has no prompts in {path or bench.home}; left out: {dict(bad.counts)}, first {sample}")
    return list(prompts.values())


def _check(prompt: Prompt, bench: Bench) -> None:
    """Refuse a prompt that says nothing where something is to be said."""
    if bench.kind is not Kind.SENTENCES:
        check_text("the prompt", prompt.instruction, if_empty="empty_prompt")
    for turn in prompt.follow_ups:
        check_text("a later turn", turn, if_empty="empty_turn")
