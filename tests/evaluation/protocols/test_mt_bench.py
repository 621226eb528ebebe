"""MT-Bench: what the judge is told, how scores are read, and the published averages of six models."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multifaceted.data.bad_rows import BadRows, DataError
from multifaceted.data.benches import read_bench
from multifaceted.data.reading import read_rows
from multifaceted.evaluation.protocols.mt_bench import (
    GUIDED,
    TEMPLATES,
    Score,
    judge_texts,
    metrics,
    parse_score,
    read_judgments,
    read_templates,
    template_name,
)
from multifaceted.inference.files import read_answers
from multifaceted.records import Prompt

PUBLISHED = {  # turn 1, turn 2, average
    "mamba_0_5_dpo_ep3": (7.7375, 6.8875, 7.3125),
    "mamba_0_5_dpo_ep1": (7.59375, 6.65, 7.121875),
    "mamba_0_75_dpo_ep1": (7.41875, 6.65, 7.034375),
    "mamba_0_75_dpo_ep3": (7.19375, 5.96875, 6.58125),
    "mamba_0_875_dpo_ep1": (6.95625, 5.81875, 6.3875),
    "mamba_0_875_dpo_ep3": (6.93125, 5.80625, 6.36875),
}
JUDGMENTS = ["mamba_six_models", "llama3_griffin"]


def told(templates, prompt, turn, answers, references):
    return templates[template_name(prompt, turn)].messages(judge_texts(prompt, turn, answers, references))


def question(category, name="101"):
    metadata = {"category": category, "references": []}
    return Prompt(
        id=name, split="mt_bench", system=None, instruction="First?", follow_ups=["Second?"], metadata=metadata
    )


@pytest.mark.parametrize(
    ("text", "score"),
    [
        ("Good. Rating: [[7]]", 7.0),
        ("Rating: [[8.5]], not [[3]]", 8.5),
        ("see [2], so [[9]]", 9.0),
        ("Rating: [4]", 4.0),
        ("Rating: [[seven]]", None),
        ("Rating: 7", None),
        ("Rating: [[0]]", None),
        ("Rating: [[11]]", None),
        ("[[-3]]", None),
        ("$ERROR$", None),
        ("", None),
    ],
)
def test_scores_are_read_strictly(text, score):
    assert parse_score(text) == score


@given(st.text(), st.text(st.characters(exclude_characters="[")), st.floats(1, 10).map(lambda x: round(x, 2)))
def test_the_first_score_in_double_brackets_wins(after, before, score):
    assert parse_score(f"{before}[[{score}]]{after}") == score


@pytest.mark.parametrize("category", ["math", "writing"])
@pytest.mark.parametrize("turn", [1, 2])
def test_the_judge_is_told_what_belongs_to_the_turn(category, turn):
    templates = read_templates(None)
    answers, references = ["answer one {answer}", "answer two"], ["truth one", "truth two"]
    system, user = told(templates, question(category), turn, answers, references)
    assert system["role"] == "system" and user["role"] == "user"
    text = user["content"]
    assert "First?" in text and "answer one {answer}" in text  # a place in an answer is not filled
    assert ("Second?" in text) is ("answer two" in text) is (turn == 2)
    assert ("truth one" in text) is (category in GUIDED)
    assert ("truth two" in text) is (category in GUIDED and turn == 2)


def test_missing_references_and_answers_are_refused():
    with pytest.raises(ValueError, match="question 101 has 0 references; turn 1"):
        judge_texts(question("coding"), 1, ["a"], [])
    with pytest.raises(ValueError, match="question 101 has 1 answers; turn 2"):
        judge_texts(question("writing"), 2, ["a"], [])


def test_our_templates_have_the_places_of_fastchats():
    assert {name: {*template.headings} for name, template in read_templates(None).items()} == dict(TEMPLATES.values())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: rows[1:], "has no template single-v1; name FastChat's judge_prompts.jsonl"),
        (
            lambda rows: [rows[0] | {"prompt_template": "{question}"}, *rows[1:]],
            "single-v1 has the places {question}; it needs {answer}, {question}",
        ),
        (lambda rows: [rows[0] | {"prompt_template": "{answer.x} {0}"}, *rows[1:]], "has the places {0}"),
        (lambda rows: [{"name": "single-v1"}, *rows[1:]], "line 1: no 'system_prompt'"),
    ],
)
def test_a_template_that_hides_something_is_refused(change, message, tmp_path):
    rows = [
        {"name": name, "system_prompt": "Grade.", "prompt_template": " ".join(f"{{{place}}}" for place in places)}
        for name, places in TEMPLATES.values()
    ]
    path = tmp_path / "judge_prompts.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in change(rows)))
    with pytest.raises(DataError) as error:
        read_templates(path)
    assert message in str(error.value)


def judged(question_id, turn, text, model="small"):
    return {"question_id": question_id, "model": model, "turn": turn, "judgment": text, "score": 0}


def test_unscored_verdicts_are_counted_and_never_zero(tmp_path):
    texts = {(1, 1): "[[8]]", (1, 2): "[[6]]", (2, 1): "$ERROR$", (2, 2): "[[4]]", (3, 1): "[[9]]", (3, 2): "none"}
    path = tmp_path / "judgments.jsonl"
    rows = [judged(*at, text) for at, text in texts.items()]
    path.write_text("\n".join(map(json.dumps, [*rows, judged(1, 1, "[[10]]", "other")])))
    models = read_judgments(path, {"1": "math", "2": "math", "3": "stem"})
    assert {model: len(verdicts) for model, verdicts in models.items()} == {"small": 6, "other": 1}
    found = {name: (e.value, e.n, e.unscored) for name, e in metrics(models["small"]).items()}
    assert found == {
        "mt_bench/score": (6.75, 4, 2),
        "mt_bench/score/math": (6.0, 3, 1),
        "mt_bench/score/stem": (9.0, 1, 1),
        "mt_bench/turn_1": (8.5, 2, 1),
        "mt_bench/turn_1/math": (8.0, 1, 1),
        "mt_bench/turn_1/stem": (9.0, 1, 0),
        "mt_bench/turn_2": (5.0, 2, 1),
        "mt_bench/turn_2/math": (5.0, 2, 0),
        "mt_bench/turn_2/stem": (None, 0, 1),
    }


def test_both_turns_of_a_question_are_resampled_together():
    def verdicts(same):
        return [
            Score(question=str(q), category="stem", turn=t, score=1.0 + 9 * ((q if same else q + t) % 2))
            for q in range(40)
            for t in (1, 2)
        ]

    together, apart = (metrics(verdicts(same))["mt_bench/score"] for same in (True, False))
    assert together.value == apart.value and apart.low == apart.high == 5.5 and together.high - together.low > 1


def test_judgements_of_other_questions_are_refused(tmp_path):
    path = tmp_path / "judgments.jsonl"
    path.write_text(json.dumps(judged(7, 1, "[[1]]")))
    with pytest.raises(DataError, match="question 7 has no category"):
        read_judgments(path, {"1": "math"})


@pytest.mark.parametrize("name", JUDGMENTS)
def test_every_recorded_score_is_read_from_its_text(name, shared):
    rows = [row.value for row in read_rows(shared(f"mt_bench/judgments/{name}.gpt-4_single.jsonl.gz"), BadRows())]
    scores = [-1 if (score := parse_score(row["judgment"])) is None else score for row in rows]
    assert scores == [row["score"] for row in rows] and len(rows) == {"mamba_six_models": 960}.get(name, 330)


def questions_of(shared):
    return {p.id: p for p in read_bench("mt_bench", shared("bench_sources/mt_bench_questions.jsonl"), BadRows())}


def test_averages_of_six_models_are_the_published_ones(shared):
    categories = {name: prompt.metadata["category"] for name, prompt in questions_of(shared).items()}
    models = read_judgments(shared("mt_bench/judgments/mamba_six_models.gpt-4_single.jsonl.gz"), categories)
    found = {model: metrics(verdicts) for model, verdicts in models.items()}
    columns = [f"mt_bench/{name}" for name in ("turn_1", "turn_2", "score")]
    assert {model: tuple(of[name].value for name in columns) for model, of in found.items()} == PUBLISHED
    assert all(of[name].unscored == 0 for of in found.values() for name in columns)
    unscored = read_judgments(shared("mt_bench/judgments/llama3_griffin.gpt-4_single.jsonl.gz"), categories)
    score = metrics(unscored["Meta-Llama-3-8B-Instruct-Normal"])["mt_bench/score"]
    assert (score.n, score.unscored) == (166, 4)


def test_the_judge_is_told_the_recorded_bytes(shared):
    """Both turns of 80 questions of two models, 30 of them beside references."""
    templates = read_templates(shared("mt_bench/judge_prompts.jsonl"))
    questions, recorded = questions_of(shared), read_answers(shared("mt_bench/reference_answer_gpt-4.jsonl"))
    references = {name: found.turns for name, found in recorded.items()}
    assert {name for name, prompt in questions.items() if prompt.metadata["category"] in GUIDED} == {*references}
    path = shared("mt_bench/judgments/mamba_six_models.gpt-4_single.jsonl.gz")
    count = 0
    for model in ("mamba_0_5_dpo_ep3", "mamba_0_75_dpo_ep1"):
        answers = read_answers(shared(f"mt_bench/model_answer/{model}.jsonl.gz"))
        for row in (row.value for row in read_rows(path, BadRows()) if row.value["model"] == model):
            name, turn = str(row["question_id"]), row["turn"]
            asked = told(templates, questions[name], turn, answers[name].turns, references.get(name, []))
            guided = questions[name].metadata["category"] in GUIDED
            assert asked[-1]["content"] == row["user_prompt"] and row["judge"][1] == TEMPLATES[guided, turn][0]
            count += 1
    assert count == 320
