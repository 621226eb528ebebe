"""AlpacaEval 2 as a task: one question a prompt, weighed by the first token, and the leaderboard's row of a model."""

import json
import math
import shutil

import pytest

from multifaceted.config import ConfigError, build, to_plain
from multifaceted.data.bad_rows import DataError
from multifaceted.evaluation.alpaca_eval import AlpacaEvalTask
from multifaceted.evaluation.config import EvalConfig
from multifaceted.evaluation.protocols.alpaca_eval import Annotation, is_swapped
from multifaceted.evaluation.protocols.length_control import (
    METRIC,
    length_controlled_win_rate,
    read_length_control,
)
from multifaceted.evaluation.run import rescore, run
from multifaceted.evaluation.verdict_log import read_verdicts
from multifaceted.inference.requests import Reply
from multifaceted.record_files import RecordError, read_jsonl, read_prompts, write_jsonl
from multifaceted.records import PROMPTS, RULE, SCORES, VERDICTS, Scores
from multifaceted.tables import score_table
from tests.conftest import composed
from tests.evaluation.engines import section
from tests.evaluation.protocols.test_length_control import published
from tests.evaluation.protocols.test_length_control import write as write_control
from tests.evaluation.replay import replayed
from tests.inference.server import MockServer

OURS = ["Because it is.", "", "Same.", " \n", "So.", "Well."]
THEIRS = ["It is not.", "Yes.", "Same.", "", "\u200b", "Well, well."]


@pytest.fixture
def files(tmp_path):
    """Overrides of a command that evaluates `ours` against `theirs`."""

    def write(ours=OURS, theirs=THEIRS):
        assert len(ours) == len(theirs)
        instructions = [f"Why is {n}?" for n in range(len(ours))]
        paths = {name: tmp_path / f"{name}.json" for name in ("bench", "ours", "theirs")}
        paths["bench"].write_text(json.dumps([{"instruction": text, "dataset": "own"} for text in instructions]))
        for name, texts in (("ours", ours), ("theirs", theirs)):
            rows = [
                {"instruction": i, "output": text, "generator": name}
                for i, text in zip(instructions, texts, strict=True)
            ]
            paths[name].write_text(json.dumps(rows))
        return [
            *("task=alpaca_eval", "judge=alpaca_eval", f"bench={paths['bench']}", f"task.against={paths['theirs']}"),
            *("engine=file", f"engine.path={paths['ours']}", f"into={tmp_path}/into"),
        ]

    return write


def one_token(request, **probabilities):
    """A judge's reply, cut after its only token as replies of this protocol are."""
    first = {token: math.log(share) for token, share in probabilities.items()}
    return Reply(id=request.id, text="m", finished=False, first_token=first)


def longer(request):
    """Prefers the longer answer by three to one."""
    first, second = (len(section(request, f"Answer of model {name}")) for name in "mM")
    return one_token(request, **({"m": 0.6, "M": 0.2} if first > second else {"m": 0.2, "M": 0.6}))


def test_each_instruction_is_asked_once_in_the_order_of_its_coin(files):
    config, metrics, asked = replayed(longer, *files())
    verdicts = {v.prompt: v for v in read_verdicts(config.folder / VERDICTS)}
    assert len(verdicts) == 6 and len(asked) == 2, "what a rule decides is not asked"
    for request in asked:
        instruction = section(request, "Instruction")
        shown_first = section(request, "Answer of model m")
        assert (shown_first in OURS) is is_swapped(instruction, 0)
    swapped = {prompt.id: is_swapped(prompt.instruction, 0) for prompt in read_prompts(config.folder / PROMPTS)}
    assert {name: v.order == "policy_first" for name, v in verdicts.items()} == swapped
    assert {name.removeprefix("alpaca_eval/"): (pytest.approx(e.value), e.n) for name, e in metrics.items()} == {
        "win_rate": (100 * (0.75 + 0 + 0.5 + 0.5 + 1 + 0.25) / 6, 6),
        "discrete_win_rate": (100 * (1 + 0 + 0.5 + 0.5 + 1 + 0) / 6, 6),
        "wins": (100 / 3, 6),
        "draws": (100 / 3, 6),
        "losses": (100 / 3, 6),
        "avg_length": (sum(map(len, OURS)) / 6, 6),
        "unscored": (0, 6),
        "empty": (3 / 6, 6),
        "cut": (0, 6),
    }
    shown = score_table(Scores(task="alpaca_eval", policy={}, metrics=metrics)).splitlines()
    assert shown[1].split() == ["split", "win_rate", "discrete_win_rate", "avg_length", "unscored", "empty"]
    decided = [v for v in verdicts.values() if v.judge == RULE]
    assert [(v.score, v.empty) for v in sorted(decided, key=lambda v: v.lengths)] == [
        (1.0, True),
        (1.5, True),
        (2.0, True),
        (1.5, False),
    ], "equal answers are no empty ones"


def test_metrics_come_from_records_alone(files):
    overrides = files()
    config, metrics, _ = replayed(longer, *overrides)
    before = (config.folder / SCORES).read_bytes()
    rescore(config.folder, AlpacaEvalTask(against=config.folder / "gone"))
    assert (config.folder / SCORES).read_bytes() == before
    _, again, asked = replayed(longer, *overrides)
    assert again == metrics and asked == []
    rows = [row | {"lengths": None} for row in read_jsonl(config.folder / VERDICTS)]
    write_jsonl(config.folder / VERDICTS, rows)
    with pytest.raises(RecordError, match="does not say how long the answers are"):
        rescore(config.folder, config.task)


def test_the_same_answers_in_the_other_order_are_preferred_the_same(files, tmp_path):
    """A judge that looks at the answers and not at their places: another seed tosses other coins."""
    overrides = files([f"{n}" * 20 for n in range(30)], [f"{n}" * (n + 1) for n in range(30)])
    rates, shown_first = [], []
    for seed in (0, 1):
        _, metrics, asked = replayed(longer, *overrides, f"seed={seed}", f"into={tmp_path}/{seed}")
        rates.append(metrics["alpaca_eval/win_rate"].value)
        shown_first.append({section(request, "Answer of model m") for request in asked})
    assert rates[0] == pytest.approx(rates[1]) and shown_first[0] != shown_first[1]


def test_a_first_token_without_either_label_is_unscored_and_counted(files):
    def rule(request):
        if "Why is 0?" in request.messages[-1]["content"]:
            return one_token(request, The=0.9, Both=0.1)
        return Reply(id=request.id, text="M", finished=True)  # no log-probabilities at all

    _, metrics, asked = replayed(rule, *files())
    rate = metrics["alpaca_eval/win_rate"]
    assert (rate.n, rate.unscored, len(asked)) == (4, 2, 2) and rate.value == pytest.approx(100 * 2 / 4)
    assert metrics["alpaca_eval/unscored"].value == pytest.approx(2 / 6) and metrics["alpaca_eval/avg_length"].n == 6


def test_runs_of_one_instruction_are_averaged_and_none_is_left_out(files):
    def rule(request):
        silent = section(request, "Instruction") == "Why is 1?" and request.sample == 1
        return one_token(request, The=1.0) if silent else one_token(request, m=0.5 + request.sample / 4, M=0.5)

    _, metrics, asked = replayed(rule, *files(["a", "b"], ["c", "d"]), "judge.runs=2")
    rate = metrics["alpaca_eval/win_rate"]
    share = (0.5 + (0.6 if is_swapped("Why is 0?", 0) else 0.4)) / 2
    assert (rate.n, rate.unscored, len(asked)) == (1, 1, 4) and rate.value == pytest.approx(100 * share)
    assert metrics["alpaca_eval/unscored"].value == 0.25


def test_the_judge_is_asked_for_one_token_and_its_alternatives(files, tmp_path, monkeypatch):
    """A server that gives no log-probabilities leaves everything unscored that it was asked."""
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    with MockServer() as server:
        engine = [f"judge.engine.base_url={server.address}", f"judge.engine.ledger={tmp_path}/requests.sqlite"]
        config = build(composed("eval", [*files(), *engine, "judge.engine.max_spend=1"]), EvalConfig)
        scores = run(config, to_plain(config))
    assert len(server.bodies) == 2
    for body in server.bodies:
        settings = {name: body[name] for name in ("model", "temperature", "max_tokens", "logprobs", "top_logprobs")}
        assert settings == {
            "model": "gpt-4-1106-preview",
            "temperature": 1.0,
            "max_tokens": 1,
            "logprobs": True,
            "top_logprobs": 5,
        }
    assert scores.metrics["alpaca_eval/win_rate"].unscored == 2


@pytest.mark.parametrize("judge", [["judge=policy", "judge.engine.policy=a"], ["judge=mt_bench"]])
def test_a_judge_without_log_probabilities_is_refused(files, judge):
    overrides = [override for override in files() if override != "judge=alpaca_eval"]
    with pytest.raises(ConfigError, match=r"judge .* does not give them; use judge=alpaca_eval, or"):
        replayed(longer, *overrides, *judge)


def test_a_policy_weighs_by_its_own_distribution(files, tiny_run, tmp_path):
    """Whose vocabulary is small enough for both labels to be among the likeliest tokens."""
    folder = shutil.copytree(tiny_run.exported, tmp_path / "judge")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 8192}))
    overrides = [override for override in files() if override != "judge=alpaca_eval"]
    judge = ["judge=policy", f"judge.engine.policy={folder}", "judge.engine.top_logprobs=400"]
    alone = ["judge.engine.max_tokens=1", "judge.runs=1", "judge.retries=0"]
    config = build(composed("eval", [*overrides, *judge, *alone]), EvalConfig)
    scores = run(config, to_plain(config))
    assert scores.metrics["alpaca_eval/unscored"].value == 0
    for verdict in read_jsonl(config.folder / VERDICTS):
        assert verdict["judge"] == RULE or {"m", "M"} <= verdict["first_token"].keys()


def test_a_published_template_is_put_to_the_judge(files, tmp_path):
    path = tmp_path / "alpaca_eval_clf.txt"
    path.write_text(
        "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\n{instruction}|{output_1}|{output_2}\n<|im_end|>"
    )
    _, _, asked = replayed(lambda request: one_token(request, m=1.0), *files(), f"task.template={path}")
    told = {request.messages[1]["content"] for request in asked}
    assert told <= {f"Why is {n}?|{one}|{other}" for n in (0, 5) for one in OURS + THEIRS for other in OURS + THEIRS}
    path.write_text("<|im_start|>user\n{instruction}<|im_end|>")
    with pytest.raises(DataError, match=r"the template alpaca_eval_clf\.txt has the places"):
        replayed(longer, *files(), f"task.template={path}")


@pytest.fixture
def controlled(files, tmp_path):
    """A bench of 120 instructions whose baseline has the lengths of a length control."""
    path = write_control(tmp_path / "reference.json", published())
    lengths = published()["output_lengths"]["base"]
    theirs = ["t" * length for length in lengths]
    ours = ["o" * (200 + 37 * (n * n % 71)) for n in range(len(theirs))]
    return path, ours, theirs, [*files(ours, theirs), f"task.length_control={path}"]


def uneven(request):
    """Prefers now one answer and now the other, the longer one more often."""
    first, second = (len(section(request, f"Answer of model {name}")) for name in "mM")
    share = (0.3 + 0.4 * (first > second)) + 0.2 * (first % 2)
    return one_token(request, m=share, M=1 - share)


def test_length_is_controlled_for_where_the_reference_is_named(controlled, files):
    path, ours, theirs, overrides = controlled
    config, metrics, _ = replayed(uneven, *overrides)
    control = read_length_control(path)
    verdicts = {v.prompt: v for v in read_verdicts(config.folder / VERDICTS)}
    annotations = [
        Annotation(
            index=n,
            preference=verdicts[prompt["id"]].score,
            baseline_length=len(theirs[n]),
            model_length=len(ours[n]),
        )
        for n, prompt in enumerate(read_jsonl(config.folder / PROMPTS))
    ]
    assert metrics[METRIC] == length_controlled_win_rate(annotations, control)
    assert metrics[METRIC].value != pytest.approx(metrics["alpaca_eval/win_rate"].value, abs=0.1)
    with pytest.raises(ValueError, match=r"another baseline: 120 of 120 answers in task\.against"):
        replayed(uneven, *files([text + "." for text in ours], [text + "." for text in theirs]), overrides[-1])


def test_what_has_no_fit_is_unscored_and_loses_no_other_metric(controlled):
    *_, overrides = controlled
    _, metrics, _ = replayed(lambda request: Reply(id=request.id, text="", finished=False), *overrides)
    assert (metrics[METRIC].value, metrics[METRIC].unscored) == (None, 120)
    assert metrics["alpaca_eval/win_rate"].unscored == 120 and metrics["alpaca_eval/avg_length"].n == 120


def test_a_reference_that_is_none_is_refused_before_anything_is_asked(files, tmp_path):
    (tmp_path / "none.json").write_text("{}")
    with pytest.raises(DataError, match="no record of AlpacaEval's length control"):
        replayed(longer, *files(), f"task.length_control={tmp_path}/none.json")
