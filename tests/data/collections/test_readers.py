"""What each reader makes of a row: figures of real files, scores, turns, ties, and what it refuses."""

import gzip
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multifaceted.config import ConfigError, build
from multifaceted.data.bad_rows import BadRows, DataError, OnBadRow
from multifaceted.data.collections.answers import Answer, Pairs, compare, why_alone
from multifaceted.data.collections.dsp import Dsp
from multifaceted.data.collections.helpsteer import HelpSteer
from multifaceted.data.collections.oasst import Oasst
from multifaceted.data.collections.ultrafeedback import Score, UltraFeedback
from multifaceted.data.collections.webgpt import WebGpt
from multifaceted.records import Turn
from tests.data.collections.sets import binarized, domains, flat, rated, scored, tree, webgpt
from tests.data.shapes import write


def read(source, rows, tmp_path, policy=OnBadRow.RAISE, **settings):
    path = rows if hasattr(rows, "exists") else write(tmp_path / "rows.jsonl", rows)
    bad = BadRows(policy=policy)
    return list(source(train_file=path, validation_file=path, **settings).train(0, bad)), bad.counts


answers = st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 3)), max_size=6).map(
    lambda found: [Answer(str(name), text, score) for name, (text, score) in enumerate(found)]
)


@given(answers)
def test_answers_are_compared_by_score_never_with_their_like(found):
    every = {(c.name, r.name) for c, (r,) in compare(found, Pairs.EVERY)}
    assert every == {(a.name, b.name) for a in found for b in found if a.score > b.score and a.text != b.text}
    extremes, group = compare(found, Pairs.EXTREMES), compare(found, Pairs.GROUP)
    assert len(extremes) == len(group) == bool(every)
    for (best, (worst,)), (chosen, rejected) in zip(extremes, group, strict=True):
        assert best == chosen and worst == rejected[-1]
        assert {(chosen.name, answer.name) for answer in rejected} == {p for p in every if p[0] == chosen.name}
        assert worst.score == min(answer.score for answer in rejected)
    for answer in found:
        alone = why_alone(answer, found).reason
        is_paired = any(answer.name in names for names in every)
        assert is_paired == (alone == "not_compared"), "with every pair made, nothing is left out for the option's sake"


def test_the_real_trees_give_754_ranked_pairs(shared, tmp_path):
    """The published figure of this file."""
    path = shared("reward/oasst_en_100_trees.jsonl.gz")
    for pairs, number in ((Pairs.EVERY, 754), (Pairs.EXTREMES, 212), (Pairs.GROUP, 212)):
        examples, counts = read(Oasst, path, tmp_path, pairs=pairs, languages=["en"])
        assert len(examples) == number and not counts
    assert sum(len(example.rejected) for example in examples) == 641 - 212
    assert read(Oasst, path, tmp_path, OnBadRow.DROP, languages=["de"]) == ([], {"no_sibling": 100})
    with pytest.raises(ValueError, match="languages is empty"):
        Oasst(train_file=path, languages=[])


def test_both_layouts_of_a_tree_teach_the_same(shared, tmp_path):
    def flattened(node, parent, name):
        yield {k: v for k, v in node.items() if k != "replies"} | {"parent_id": parent, "message_tree_id": name}
        for reply in node["replies"]:
            yield from flattened(reply, node["message_id"], name)

    path = shared("reward/oasst_en_100_trees.jsonl.gz")
    trees = [json.loads(line) for line in gzip.decompress(path.read_bytes()).splitlines()]
    rows = [row for t in trees for row in flattened(t["prompt"], None, t["message_tree_id"])]

    def told(examples):
        return sorted((str(e.turns), e.chosen, *e.rejected) for e in examples)

    flat_rows, counts = read(Oasst, rows, tmp_path)
    assert told(flat_rows) == told(read(Oasst, path, tmp_path)[0])
    assert len(rows) == 1167 and counts.keys() == {"not_ranked"}


def test_a_conversation_is_the_prompt_of_its_replies(tmp_path):
    rows = [flat(0, None, "prompter"), flat(1, 0, "assistant", 0), flat(2, 1, "prompter")]
    rows += [flat(n, 2, "assistant", 5 - n) for n in (3, 4, 5)]
    examples, counts = read(Oasst, rows, tmp_path, pairs=Pairs.GROUP)
    assert not counts, "every message is in the one group"
    (group,) = examples
    assert [turn.role for turn in group.turns] == ["user", "assistant", "user"]
    assert group.chosen.startswith("<5>") and [text[:3] for text in group.rejected] == ["<4>", "<3>"]
    assert group.margin is None, "a rank does not say by how much"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"deleted": True}, "deleted"),
        ({"review_result": False}, "failed_review"),
        ({"lang": "de"}, "other_language"),
        ({"tree_state": "growing"}, "tree_not_ready"),
    ],
)
def test_a_message_that_is_left_out_takes_its_replies_with_it(tmp_path, change, reason):
    rows = [flat(0, None, "prompter"), flat(1, 0, "assistant", 0), flat(2, 0, "assistant", 1)]
    below = [flat(3, 1, "prompter"), flat(4, 3, "assistant", 0), flat(5, 3, "assistant", 1)]
    rows[1] |= change
    examples, counts = read(Oasst, [*rows, *below], tmp_path, languages=["en"])
    assert not examples and counts == {reason: 1, "no_parent": 3, "no_sibling": 1, "not_ranked": 1}


def test_rows_of_a_tree_must_stand_together(tmp_path):
    rows = [flat(0, None, "prompter"), flat(9, None, "prompter", tree="other")]
    rows += [flat(1, 0, "assistant", 0), flat(2, 0, "assistant", 1)]
    assert read(Oasst, rows, tmp_path) == ([], {"not_ranked": 2, "no_parent": 2})
    with pytest.raises(DataError, match="line 2: message_id 'm0' occurs twice in its tree"):
        read(Oasst, [rows[0], rows[0]], tmp_path)
    with pytest.raises(DataError, match="line 1: no message_tree_id; found message_id"):
        read(Oasst, [{"message_id": "a", "text": "Hi.", "role": "prompter"}], tmp_path)
    circle = [flat(0, 1, "prompter"), flat(1, 0, "assistant")]
    assert read(Oasst, circle, tmp_path) == ([], {"no_parent": 2})


def test_the_real_answers_by_domain(shared, tmp_path):
    examples, counts = read(Dsp, shared("reward/dsp_test.json.gz"), tmp_path, OnBadRow.DROP)
    assert len(examples) == (661 - 4) * 5 and counts == {"no_sibling": 3, "empty_response": 1}
    assert {example.chosen in example.rejected for example in examples} == {False}
    first = examples[:5]
    assert len({e.system for e in first}) == 5 and {e.turns[0].content for e in first} == {first[0].turns[0].content}
    assert [e.preferences[0].preference for e in first] == [e.id.rpartition(":")[2] for e in first]


def test_a_domain_that_is_unknown_or_absent(tmp_path):
    with pytest.raises(DataError, match="the domain 'law' is none of academy, business"):
        read(Dsp, [domains(0, law="Rain is legal.")], tmp_path)
    examples, _ = read(Dsp, [domains(0, normal=None)], tmp_path)
    assert len(examples) == 4 and all(len(e.rejected) == 3 for e in examples)


def test_webgpt_prefers_the_higher_score_and_leaves_out_ties(tmp_path):
    rows = [webgpt(0, (-0.5, 0.5)), webgpt(1, (0, 0)), webgpt(2, (1, -1)) | {"question": "Why?"}]
    (first, second), counts = read(WebGpt, rows, tmp_path)
    assert (first.chosen, first.rejected, first.margin) == ("<0> It cries.", ["<0> It condenses [1]."], 1.0)
    assert second.turns == [Turn(role="user", content="Why?")] and counts == {"tie": 1}


def test_helpsteer_pairs_what_stands_together(tmp_path):
    rows = [rated(0, 0, 1), rated(1, 0, 4), rated(2, 1, 2), rated(3, 1, 2), rated(4, 0, 0)]
    (pair,), counts = read(HelpSteer, rows, tmp_path)
    assert (pair.chosen, pair.rejected, pair.margin) == ("<1> Water.", ["<0> Water."], 3)
    assert counts == {"tie": 2, "no_sibling": 1}


def test_helpsteer_prompts_of_several_turns(tmp_path):
    prompt = "Hi.\n\n<extra_id_1>Assistant\n\nHello.\n\n<extra_id_1>User\nWhy rain?\n"
    rows = [rated(n, 0, n) | {"prompt": prompt} for n in range(2)]
    (pair,), _ = read(HelpSteer, rows, tmp_path)
    said = [("user", "Hi."), ("assistant", "Hello."), ("user", "Why rain?")]
    assert [(turn.role, turn.content) for turn in pair.turns] == said
    with pytest.raises(DataError, match="the turns of prompt are user, assistant"):
        read(HelpSteer, [rated(0, 0, 0) | {"prompt": "Hi.\n<extra_id_1>Assistant\nHello."}], tmp_path)


def test_ultrafeedback_as_pairs_and_groups(tmp_path):
    rows = [scored(0, 3.0, 7.0, None, 5.0), scored(1, 4.0, 4.0), scored(2, None, float("nan"))]
    (best,), counts = read(UltraFeedback, rows, tmp_path)
    assert (best.chosen, best.rejected, best.margin) == ("<0> Answer 1.", ["<0> Answer 0."], 4.0)
    assert counts == {"tie": 1, "no_score": 1}
    assert len(read(UltraFeedback, rows, tmp_path, pairs=Pairs.EVERY)[0]) == 3
    (group,), _ = read(UltraFeedback, rows, tmp_path, pairs=Pairs.GROUP)
    assert group.rejected == ["<0> Answer 3.", "<0> Answer 0."] and group.margin is None
    rows[0]["completions"][0]["fine-grained_score"] = 5.0
    rows[0]["completions"][1]["fine-grained_score"] = 1.0
    (other,), _ = read(UltraFeedback, rows, tmp_path, score=Score.FINE_GRAINED)
    assert (other.chosen, other.rejected) == ("<0> Answer 0.", ["<0> Answer 1."])


def test_ultrafeedback_binarized(tmp_path):
    (pair,), counts = read(UltraFeedback, [binarized(0, 8.0, 5.5), binarized(1, 7.0, 7.0)], tmp_path)
    assert (pair.chosen, pair.rejected, pair.margin) == ("<0> Water.", ["<0> Tears."], 2.5) and counts == {"tie": 1}


@pytest.mark.parametrize(
    ("source", "row", "message"),
    [
        (
            WebGpt,
            {"question": "Why?", "answers": []},
            "no answer_0, no answer_1, no score_0, no score_1; found question",
        ),
        (WebGpt, webgpt(0) | {"score_0": "high"}, "score_0 is 'high'; expected a finite number"),
        (WebGpt, webgpt(0) | {"question": {"id": "q"}}, "no full_text; found id. This collection has full_text"),
        (
            HelpSteer,
            {"prompt": "a", "response": "b"},
            "no helpfulness; found prompt, response. This collection has",
        ),
        (UltraFeedback, {"instruction": "a"}, "no completions; found instruction"),
        (UltraFeedback, scored(0, 1.0) | {"completions": "b"}, "completions is a str; expected a list"),
        (Dsp, {"query": "a", "responses": ["b"]}, "responses is a list; expected answers by domain"),
        (Oasst, {"prompt": "a"}, "no message_tree_id, no tree_state; found prompt"),
        (Oasst, flat(0, None, "system"), "the role is 'system'; expected one of prompter, assistant"),
        (Oasst, flat(0, None, "prompter", rank="first"), "rank is 'first'; expected a finite number"),
        (
            Oasst,
            tree(0, 1) | {"prompt": {"message_id": "a", "text": "b", "role": "prompter", "replies": "c"}},
            "replies is",
        ),
        (Dsp, ["a"], r"the row is \['a'\], a list; expected an object with columns"),
    ],
)
def test_columns_that_do_not_fit_are_named(tmp_path, source, row, message):
    with pytest.raises(DataError, match=message):
        read(source, [domains(0), row] if isinstance(row, list) else [row], tmp_path)


@pytest.mark.parametrize("source", [WebGpt, HelpSteer, UltraFeedback, Dsp, Oasst])
def test_known_columns_have_no_other_names(source):
    with pytest.raises(ConfigError, match="reads the columns that the collection was published with"):
        build({"train_file": "a", "columns": {"prompt": "question"}}, source)
