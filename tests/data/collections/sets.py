"""A few rows of each collection in its documented columns. Every text of a row holds `<n>`, the row's number."""

from dataclasses import dataclass, field
from typing import Any

from multifaceted.data.collections.dsp import Dsp
from multifaceted.data.collections.helpsteer import HelpSteer
from multifaceted.data.collections.multifaceted import Multifaceted
from multifaceted.data.collections.oasst import Oasst
from multifaceted.data.collections.ultrafeedback import UltraFeedback
from multifaceted.data.collections.webgpt import WebGpt
from multifaceted.data.preference_files import PreferenceFiles

DIMENSIONS = ("style", "background_knowledge", "informativeness", "harmlessness")


@dataclass
class Published:
    """A collection as it was published."""

    rows: list[dict[str, Any]]
    source: type[PreferenceFiles]
    settings: dict[str, Any] = field(default_factory=dict)
    has_pairs: bool = True


def stated(*values: str) -> list[dict[str, str]]:
    """A preference set, one value a dimension."""
    return [
        {"dimension": d, "subdimension": f"{d} of {v}", "preference": v, "description": f"They want {v} in {d}."}
        for d, v in zip(DIMENSIONS, values, strict=True)
    ]


def message(role: str, content: str) -> dict[str, str]:
    return {"content": content, "role": role}


def sft(n: int, instruction: int, system: str, **other: Any) -> dict[str, Any]:
    return {
        "main_source": "Nectar",
        "original_source": "sharegpt",
        "preference_set": stated(system, system, system, system),
        "system": f"You write for readers of {system}.",
        "prompt": f"What is rain, part {instruction}?",
        "output": f"<{n}> Rain as told in {system}.",
    } | other


def pair(n: int, instruction: int, system: str, rejected: str, split: str = "dpo") -> dict[str, Any]:
    row = sft(n, instruction, system)
    asked = [message("user", row["prompt"])]
    if split == "rm":
        whole = f"{row['system']}\n{row['prompt']}"
        return {"input": whole, "chosen": row["output"], "rejected": rejected}
    del row["preference_set"]
    answer = row.pop("output")
    return row | {
        "chosen": [*asked, message("assistant", answer)],
        "rejected": [*asked, message("assistant", rejected)],
    }


def transcript(*texts: str) -> str:
    return "".join(f"\n\n{('Human', 'Assistant')[i % 2]}: {text}" for i, text in enumerate(texts))


def flat(
    n: int, parent: int | None, role: str, rank: int | None = None, tree: str = "t", **other: Any
) -> dict[str, Any]:
    return {
        "message_id": f"m{n}",
        "parent_id": None if parent is None else f"m{parent}",
        "text": f"<{n}> Words on rain.",
        "role": role,
        "lang": "en",
        "review_result": True,
        "deleted": False,
        "rank": rank,
        "message_tree_id": tree,
        "tree_state": "ready_for_export",
    } | other


def tree(n: int, *ranks: int | None) -> dict[str, Any]:
    def nested(name: str, role: str, rank: int | None = None, replies: tuple = ()) -> dict[str, Any]:
        return {
            "message_id": name,
            "text": f"<{n}> {name}",
            "role": role,
            "lang": "en",
            "rank": rank,
            "replies": [*replies],
        }

    replies = tuple(nested(f"reply {i}", "assistant", rank) for i, rank in enumerate(ranks))
    return {
        "message_tree_id": f"t{n}",
        "tree_state": "ready_for_export",
        "prompt": nested("root", "prompter", None, replies),
    }


def webgpt(n: int, scores: tuple[float, float] = (0.5, -0.5)) -> dict[str, Any]:
    quotes = {"title": ["Rain (rain.org)"], "extract": ["Rain is water."]}
    return {
        "question": {"dataset": "eli5", "id": f"q{n}", "full_text": f"Why does it rain, part {n}?"},
        "quotes_0": quotes, "answer_0": f"<{n}> It condenses [1].", "score_0": scores[0],
        "quotes_1": quotes, "answer_1": f"<{n}> It cries.", "score_1": scores[1],
    }  # fmt: skip


def rated(n: int, prompt: int, helpfulness: int) -> dict[str, Any]:
    other = dict.fromkeys(("correctness", "coherence", "complexity", "verbosity"), 3)
    return {"prompt": f"Explain rain, part {prompt}.", "response": f"<{n}> Water.", "helpfulness": helpfulness} | other


def scored(n: int, *scores: float | None) -> dict[str, Any]:
    completions = [
        {"model": f"m{i}", "response": f"<{n}> Answer {i}.", "overall_score": score, "fine-grained_score": score}
        for i, score in enumerate(scores)
    ]
    return {"source": "evol_instruct", "instruction": f"Describe rain, part {n}.", "completions": completions}


def binarized(n: int, better: float, worse: float) -> dict[str, Any]:
    asked = message("user", f"Describe rain, part {n}.")
    return {
        "prompt": asked["content"], "prompt_id": str(n),
        "chosen": [asked, message("assistant", f"<{n}> Water.")], "score_chosen": better,
        "rejected": [asked, message("assistant", f"<{n}> Tears.")], "score_rejected": worse,
    }  # fmt: skip


def domains(n: int, **texts: str) -> dict[str, Any]:
    answers = {
        name: f"<{n}> As in {name}." for name in ("academy", "business", "entertainment", "literature", "normal")
    }
    return {"query": f"Why does it rain, part {n}?", "responses": answers | texts}


THREE = [sft(3 * i + j, i, system) for i in range(4) for j, system in enumerate(("poetry", "science", "law"))]
BEFORE = [
    {"system_prompt": row["system"], "user_prompt": row["prompt"], "output": row["output"], "main_source": "mpa"}
    | {"preference": row["preference_set"]}
    for row in THREE
]

SETS = {
    "multifaceted": Published(THREE, Multifaceted, has_pairs=False),
    "multifaceted before release": Published(BEFORE, Multifaceted, has_pairs=False),
    "multifaceted groups": Published(THREE, Multifaceted, {"siblings": True}),
    "multifaceted dpo": Published([pair(i, i, "poetry", "No.") for i in range(6)], Multifaceted),
    "multifaceted rm": Published([pair(i, i, "poetry", "No.", split="rm") for i in range(6)], Multifaceted),
    "hh_rlhf": Published(
        [
            {
                "chosen": transcript("Hi.", "Hello.", f"Why rain, {i}?", f"<{i}> It condenses."),
                "rejected": transcript("Hi.", "Hello.", f"Why rain, {i}?", "Because."),
            }
            for i in range(6)
        ],
        PreferenceFiles,
    ),
    "oasst1 flat": Published(
        [
            flat(0, None, "prompter"), flat(1, 0, "assistant", 1), flat(2, 0, "assistant", 0), flat(3, 2, "prompter"),
            flat(4, 3, "assistant", 0), flat(5, 3, "assistant", 2), flat(6, 3, "assistant", 1), flat(7, 3, "assistant"),
            flat(8, None, "prompter", tree="other"), flat(9, 8, "assistant", 0, tree="other"),
        ],
        Oasst,
    ),
    "oasst1 trees": Published([tree(i, 0, 1, 2) for i in range(6)], Oasst),
    "webgpt": Published([webgpt(i) for i in range(6)] + [webgpt(6, (0.0, 0.0))], WebGpt),
    "helpsteer": Published([rated(i, i // 2, (4, 2, 1, 3, 2, 2)[i]) for i in range(6)], HelpSteer),
    "ultrafeedback": Published([scored(i, 7.0, 3.0, None, 5.0) for i in range(6)], UltraFeedback),
    "ultrafeedback binarized": Published([binarized(i, 8.0, 8.0 if i == 3 else 5.0) for i in range(6)], UltraFeedback),
    "dsp": Published([domains(i) for i in range(6)], Dsp),
}  # fmt: skip
