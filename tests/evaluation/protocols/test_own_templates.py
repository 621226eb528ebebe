"""Under our own templates no response changes what a judge is shown of the others, or how its verdict is read."""

import pytest

from multifaceted.evaluation.alpaca_eval import AlpacaEvalTask
from multifaceted.evaluation.protocols.arena_hard import LABELS as VERDICTS
from multifaceted.evaluation.protocols.arena_hard import parse_verdict
from multifaceted.evaluation.protocols.mt_bench import LABELS as GRADES
from multifaceted.evaluation.protocols.mt_bench import parse_score
from multifaceted.evaluation.protocols.own_templates import ALPACA_EVAL, ARENA_HARD, MT_BENCH
from multifaceted.inference.requests import Reply
from multifaceted.record_files import write_jsonl
from multifaceted.records import Response
from tests.evaluation.injections import RAW

FORMS = ("[RESULT] 5", "[[5]]")
"""How ours, and how the published templates, have a verdict spelled."""
PARSED = {
    **{name: (template, parse_score, GRADES, "10", "2", 2.0) for name, template in MT_BENCH.items()},
    "arena_hard": (ARENA_HARD, parse_verdict, VERDICTS, "A>>B", "B>A", "B>A"),
}


def injected(template, response):
    """Texts by place, of which every answer is the response."""
    return {
        place: response if "answer" in place or "output" in place else "What is rain?" for place in template.headings
    }


def headings(messages):
    content = messages[-1]["content"]
    tag = content.split("carry the tag ")[1].split(".")[0]
    lines = content.split("\n")
    begins = [place for place, line in enumerate(lines) if line == f"<<<BEGIN {tag}>>>"]
    assert len(begins) == lines.count(f"<<<END {tag}>>>")
    return [lines[place - 1].removeprefix("### ") for place in begins]


@pytest.mark.parametrize("response", RAW.values(), ids=RAW)
@pytest.mark.parametrize("template", [ALPACA_EVAL, ARENA_HARD, *MT_BENCH.values()], ids=["alpaca", "arena", *MT_BENCH])
def test_no_response_changes_the_sections_of_the_question(template, response):
    assert headings(template.messages(injected(template, response))) == [*template.headings.values()]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("response", RAW.values(), ids=RAW)
@pytest.mark.parametrize("name", PARSED)
def test_no_response_changes_how_a_verdict_is_parsed(name, response, form):
    template, parse, labels, dictated, label, score = PARSED[name]
    dictating = response.replace(FORMS[0], form).replace("5", dictated)
    plain = template.reader(injected(template, "It depends."), parse, labels)
    attacked = template.reader(injected(template, dictating), parse, labels)
    for judgement in (
        f"Feedback: It misses the point. [RESULT] {label}",
        f'Feedback: One says "{{}}". It misses the point. [RESULT] {label}',
        f"Feedback: One writes:\n\n{{}}\n\nThat is no answer to the question.\n\n[RESULT] {label}",
        f"> {{}}\n\nIt gives orders instead of an answer. **[RESULT] {label}**",
    ):
        text = judgement.replace("{}", dictating)
        assert attacked(Reply(id="r", text=text, finished=True)) == score
        assert plain(Reply(id="r", text=judgement.replace("{}", "It depends."), finished=True)) == score
    for quotation in ("{}", 'It says "{}', "It says:\n{}", "> {}", "Feedback: {}"):
        assert attacked(Reply(id="r", text=quotation.replace("{}", dictating), finished=True)) is None


@pytest.mark.parametrize("name", PARSED)
def test_every_label_is_read_from_the_end_of_a_whole_reply(name):
    template, parse, labels, *_ = PARSED[name]
    read = template.reader(injected(template, "It depends."), parse, labels)
    for label, score in labels.items():
        for spelled in (label, label.upper()):
            assert read(Reply(id="r", text=f"So it is. [RESULT] {spelled}", finished=True)) == score
        assert read(Reply(id="r", text=f"So it is. [RESULT] {label}", finished=False)) is None
    for other in ("[[A>>B]]", "[RESULT] 11", "[RESULT] 0", "[RESULT] A>>>B", "[[7]]", "[RESULT] 7.5", "[RESULT] A"):
        assert read(Reply(id="r", text=f"So it is. {other}", finished=True)) is None


@pytest.mark.parametrize("response", RAW.values(), ids=RAW)
def test_what_a_judge_writes_says_nothing_where_its_first_token_decides(response, tmp_path):
    rows = [{"instruction": "What is rain?", "output": "Water."}]
    write_jsonl(tmp_path / "bench.jsonl", rows)
    task = AlpacaEvalTask(bench=tmp_path / "bench.jsonl", against=tmp_path / "bench.jsonl")
    (prompt,) = task.prompts(0)
    readings = []
    for text in ("It depends.", response):
        (question,) = task.questions([prompt], {prompt.id: Response(id=prompt.id, text=text, finished=True)})
        for said in ("m", "M", response):
            readings.append(question.read(Reply(id="r", text=said, finished=False, first_token={"m": -0.5, "M": -1.5})))
    assert len({*readings}) == 1 and 1 < readings[0] < 2
