"""Winogender, CrowS-Pairs and BBQ, by hand and with models of known bias on the real prompts."""

import pytest

from multifaceted.data.bad_rows import BadRows
from multifaceted.data.benches import read_bench
from multifaceted.evaluation.protocols.bias import bbq, crows_pairs, winogender
from multifaceted.records import Prompt


def prompt(name, metadata):
    return Prompt(id=name, split="bench", system=None, instruction="", metadata=metadata)


def values(estimates):
    return {name.split("/", 1)[1]: (e.value, e.n, e.unscored) for name, e in estimates.items()}


def sentences(occupation="nurse", percent=90.0):
    return [
        prompt(
            f"{occupation}.someone.{place}.{gender}",
            {"gender": gender, "occupation": occupation, "answer": answer, "percent_female": {"bls": percent}},
        )
        for place, answer in enumerate(["occupation", "participant"])
        for gender in ("male", "female", "neutral")
    ]


def test_winogender_by_hand():
    """A model that takes her to mean the nurse and him the other one, and does not say about one of them."""
    answers = {
        p.id: "occupation" if p.metadata["gender"] == "female" else "participant"
        for p in sentences()
        if p.id != "nurse.someone.1.neutral"
    }
    assert values(winogender(sentences(), answers)) == {
        "accuracy": (pytest.approx(2 / 5), 5, 1),
        "accuracy/male": (0.5, 2, 0),
        "accuracy/female": (0.5, 2, 0),
        "accuracy/neutral": (0.0, 1, 1),
        "accuracy/gotcha": (0.0, 2, 0),
        "accuracy/not_gotcha": (1.0, 2, 0),
        "parity": (0.0, 2, 0),
    }
    # Where few are women, the same answers go against the statistics.
    few = values(winogender(sentences(percent=10.0), answers))
    assert few["accuracy/gotcha"][0] == 1.0 and few["accuracy/not_gotcha"][0] == 0.0
    with pytest.raises(ValueError, match=r"nurse.someone.0.male is answered with 'nurse'"):
        winogender(sentences(), {"nurse.someone.0.male": "nurse"})


def test_crows_pairs_by_hand():
    kinds = [("stereo", "age"), ("stereo", "age"), ("antistereo", "race"), ("stereo", "race")]
    pairs = [prompt(str(n), {"direction": kind, "bias_type": bias}) for n, (kind, bias) in enumerate(kinds)]
    logps = {"0": (-10.0, -12.0), "1": (-9.0, -8.0), "2": (-5.0, -5.0)}
    assert values(crows_pairs(pairs, logps)) == {
        "stereotype_preferred": (pytest.approx(50), 3, 1),
        "stereotype_preferred/stereo": (50, 2, 1),
        "stereotype_preferred/antistereo": (50, 1, 0),
        "stereotype_preferred/age": (50, 2, 0),
        "stereotype_preferred/race": (50, 1, 1),
        "absolute_difference": (pytest.approx(1), 3, 1),
        "absolute_difference/age": (1.5, 2, 0),
        "absolute_difference/race": (0, 1, 1),
    }


def question(name, condition, polarity, label, groups=("old", "nonOld", "unknown"), stereotyped=("Old",)):
    return prompt(
        name,
        {
            "answers": ["a", "b", "c"],
            "groups": list(groups),
            "label": label,
            "category": "Age",
            "context_condition": condition,
            "question_polarity": polarity,
            "question_index": "1",
            "stereotyped_groups": list(stereotyped),
        },
    )


def test_bbq_by_hand():
    prompts = [
        question("1", "ambig", "neg", 2),
        question("2", "ambig", "neg", 2),
        question("3", "ambig", "nonneg", 2),
        question("4", "ambig", "nonneg", 2),
        question("5", "disambig", "neg", 0),
        question("6", "disambig", "neg", 1),
        question("7", "disambig", "nonneg", 0),
        question("8", "disambig", "nonneg", 0),
        question("9", "disambig", "nonneg", 0),
    ]
    # Ambiguous: stereotype, nobody, stereotype, against. Disambiguated: three as the stereotype has it, one nobody.
    answers = {"1": 0, "2": 2, "3": 1, "4": 0, "5": 0, "6": 0, "7": 1, "8": 2}
    found = values(bbq(prompts, answers))
    expected = {
        "accuracy_ambig": (0.25, 4, 0),
        "bias_ambig": (25.0, 4, 0),  # (1 - 1/4) * (2 * 2/3 - 1) of the paper
        "accuracy_disambig": (0.25, 4, 1),
        "bias_disambig": (100.0, 3, 1),  # 2 * 3/3 - 1
    }
    assert found == expected | {f"{name}/Age": value for name, value in expected.items()}
    with pytest.raises(ValueError, match="1 is answered with 3; expected 0 to 2"):
        bbq(prompts, {"1": 3})


@pytest.mark.parametrize("stereotyped", [(), ("old", "nonOld"), ("poor",)])
def test_groups_that_are_not_told_apart_have_an_accuracy_and_no_bias(stereotyped):
    found = values(bbq([question("1", "ambig", "neg", 2, stereotyped=stereotyped)], {"1": 2}))
    assert found["accuracy_ambig"] == (1.0, 1, 0) and found["bias_ambig"] == (None, 0, 1)


def test_models_of_known_bias_on_real_bbq(shared):
    prompts = read_bench("bbq", shared("bias/bbq"), BadRows())
    right = values(bbq(prompts, {p.id: p.metadata["label"] for p in prompts}))
    assert right["accuracy_ambig"] == (1.0, 3838, 0) and right["bias_ambig"] == (0.0, 3838, 0)
    assert right["accuracy_disambig"] == (1.0, 3838, 0) and abs(right["bias_disambig"][0]) < 3
    stereotyping = {}
    for p in prompts:
        about = p.metadata
        target = [group.casefold() in {g.casefold() for g in about["stereotyped_groups"]} for group in about["groups"]]
        blamed = about["question_polarity"] == "neg"
        stereotyping[p.id] = next(i for i in range(3) if about["groups"][i] != "unknown" and target[i] is blamed)
    biased = values(bbq(prompts, stereotyping))
    assert (biased["bias_ambig"][0], biased["bias_disambig"][0], biased["accuracy_ambig"][0]) == (100.0, 100.0, 0.0)
    assert {name.split("/")[1] for name in biased if "/" in name} == {
        *("Age", "Disability_status", "Physical_appearance", "Sexual_orientation")
    }


def test_models_of_known_bias_on_real_winogender(shared):
    prompts = read_bench("winogender", shared("bias/winogender/all_sentences.tsv").parent, BadRows())
    by_statistics = {
        p.id: "occupation"
        if (p.metadata["percent_female"]["bls"] > 50) is (p.metadata["gender"] == "female")
        else "participant"
        for p in prompts
    }
    found = values(winogender(prompts, by_statistics))
    assert found["accuracy/gotcha"] == (0.0, 240, 0) and found["accuracy/not_gotcha"] == (1.0, 240, 0)
    assert found["parity"] == (0.0, 240, 0)
    right = values(winogender(prompts, {p.id: p.metadata["answer"] for p in prompts}))
    assert right["accuracy"] == (1.0, 720, 0) and right["parity"] == (1.0, 240, 0)


def test_a_model_of_known_bias_on_real_crows_pairs(shared):
    pairs = read_bench("crows_pairs", shared("bias/crows_pairs_anonymized.csv"), BadRows())
    found = values(crows_pairs(pairs, {p.id: (-1.0, -3.0) for p in pairs}))
    assert found["stereotype_preferred"] == (100.0, 1508, 0) and found["absolute_difference"] == (2.0, 1508, 0)
    assert found["stereotype_preferred/stereo"][1] + found["stereotype_preferred/antistereo"][1] == 1508
