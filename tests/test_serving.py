"""A server that loads the export is given the tokens of training and returns the answers that were trained."""

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig

from multifaceted.data.bad_rows import BadRows
from multifaceted.inference.policy import PolicyEngine
from multifaceted.inference.requests import Request
from multifaceted.inference.server import ServerEngine
from multifaceted.model.export import export_model
from multifaceted.model.tokenizer import padding_id
from multifaceted.records import Example, Turn
from multifaceted.template import conversation, render_prompts, set_template
from tests.chats import END, FAMILIES, tokenizer_of
from tests.data.encoding import encode

pytestmark = pytest.mark.slow

TRAINED = [
    ("Be brief.", ["What is rain?"], "Water.\n\n- It falls."),
    ("Be kind.", ["What is rain?"], "Water, dear. It's 2 parts H."),
    (None, ["What is snow?"], "Frozen water, mostly."),
    ("Be brief.", ["What is rain?", "Water.\n\n- It falls.", "And snow?"], "The same, but cold."),
]
"""System message, turns, answer."""


def examples():
    roles = ("user", "assistant")
    for number, (system, texts, answer) in enumerate(TRAINED):
        turns = [Turn(role=roles[place % 2], content=text) for place, text in enumerate(texts)]
        yield Example(id=str(number), system=system, turns=turns, chosen=answer)


def learn(model, trees):
    """Learn the answers by heart, from the tokens that training sees."""
    rows = [(tree.prompt.tolist(), tree.branches[0].tolist()) for tree in trees]
    width = max(len(prompt) + len(answer) for prompt, answer in rows)
    ids, labels = torch.zeros(len(rows), width, dtype=torch.long), torch.full((len(rows), width), -100)
    for row, (prompt, answer) in enumerate(rows):
        ids[row, : len(prompt) + len(answer)] = torch.tensor(prompt + answer)
        labels[row, len(prompt) : len(prompt) + len(answer)] = torch.tensor(answer)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(300):
        loss = model(input_ids=ids, labels=labels).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if loss < 0.005:
            return
    raise AssertionError(f"the answers were not learnt: loss {loss}")


@pytest.fixture(scope="module")
def policies(tmp_path_factory):
    """For each template a folder as training exports it."""
    root = tmp_path_factory.mktemp("policies")
    for template in FAMILIES:
        tokenizer = tokenizer_of(template)
        base_eos = tokenizer.eos_token_id
        set_template(tokenizer, template)
        trees = encode(list(examples()), tokenizer, max_length=400, with_rejected=False, bad=BadRows()).trees
        torch.manual_seed(0)
        config = LlamaConfig(
            vocab_size=len(tokenizer), hidden_size=64, intermediate_size=128, num_hidden_layers=2,
            num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=512,
            bos_token_id=tokenizer.bos_token_id, eos_token_id=base_eos, pad_token_id=padding_id(tokenizer),
        )  # fmt: skip
        model = AutoModelForCausalLM.from_config(config)
        learn(model, trees)
        export_model(model.eval(), tokenizer, root / template, "")
    return root


@pytest.mark.parametrize("template", sorted(FAMILIES))
def test_what_ends_an_answer_is_in_the_export(policies, template):
    """The template's end, which vLLM reads as the tokenizer's EOS, and the base model's in the generation config."""
    tokenizer = AutoTokenizer.from_pretrained(policies / template)
    assert tokenizer.eos_token == END[template]
    generation = json.loads((policies / template / "generation_config.json").read_text())
    ends = dict.fromkeys([END[template], FAMILIES[template].eos])
    assert generation["eos_token_id"] == tokenizer.convert_tokens_to_ids([*ends])
    assert not {"do_sample", "temperature", "top_p", "top_k", "repetition_penalty", "max_length"} & {*generation}


@pytest.mark.parametrize("template", sorted(FAMILIES))
def test_the_engine_returns_the_answers_that_were_trained(policies, template):
    requests = [Request(id=e.id, messages=conversation(e)) for e in examples()]
    replies = {r.id: r for r in PolicyEngine(policy=str(policies / template), temperature=0.0).answer(requests, seed=0)}
    assert all(replies[e.id].text == e.chosen and replies[e.id].finished for e in examples())


class Server:
    """`transformers serve`, which loads the folder that a request names."""

    def __init__(self, log):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.address = f"127.0.0.1:{free.getsockname()[1]}"
        self.log = log
        command = [sys.executable, "-m", "transformers.cli.transformers", "serve", "--device", "cpu"]
        host, port = self.address.split(":")
        quiet = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONUNBUFFERED": "1"}
        with log.open("wb") as stream:
            self.process = subprocess.Popen(
                [*command, "--host", host, "--port", port], stdout=stream, stderr=subprocess.STDOUT, env=quiet
            )

    def wait(self, seconds=90):
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                return self.ask("/health", timeout=2)
            except OSError:
                time.sleep(0.3)
        raise AssertionError(f"the server did not start within {seconds} s:\n{self.tail()}")

    def ask(self, path, body=None, timeout=60):
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"http://{self.address}{path}", data, {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=timeout) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{path}: {error} {error.read().decode()}\n{self.tail()}") from None

    def chat(self, folder, messages):
        body = {"model": str(folder), "messages": messages, "temperature": 0, "max_tokens": 60}
        return self.ask("/v1/chat/completions", body)

    def tail(self):
        return self.log.read_text(errors="replace")[-4000:]

    def stop(self):
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    for needed in ("fastapi", "uvicorn", "openai"):
        pytest.importorskip(needed, reason="transformers serve needs it: pip install -e '.[serving]'")
    running = Server(tmp_path_factory.mktemp("server") / "log.txt")
    try:
        running.wait()
        yield running
    finally:
        running.stop()


@pytest.mark.parametrize("template", sorted(FAMILIES))
def test_a_server_is_given_the_tokens_of_training(policies, server, template):
    folder = policies / template
    tokenizer = tokenizer_of(template)
    set_template(tokenizer, template)
    for example in examples():
        prompt = render_prompts(tokenizer, [conversation(example)])[0]
        reply = server.chat(folder, conversation(example))
        choice = reply["choices"][0]
        assert reply["usage"]["prompt_tokens"] == len(tokenizer(prompt, add_special_tokens=False)["input_ids"])
        assert choice["message"]["content"] == example.chosen, server.tail()
        assert choice["finish_reason"] == "stop"


@pytest.mark.parametrize("template", sorted(FAMILIES))
def test_a_server_answers_as_the_policy_in_this_process_does(policies, server, template, tmp_path):
    """Also where nothing was learnt: a prompt that training never had. Both count the same tokens."""
    new = [
        {"role": "system", "content": "Be kind, be brief."},
        {"role": "user", "content": "What is user rain, and model snow?\n"},
    ]
    requests = [Request(id="new", messages=new), *(Request(id=e.id, messages=conversation(e)) for e in examples())]
    here = PolicyEngine(policy=str(policies / template), temperature=0.0, max_tokens=60)
    there = ServerEngine(
        model=str(policies / template),
        ledger=tmp_path / "requests.sqlite",
        base_url=f"http://{server.address}/v1",
        temperature=0.0,
        top_p=None,
        max_tokens=60,
        in_flight=1,
    )
    ours, theirs = ({reply.id: reply for reply in engine.answer(requests, seed=0)} for engine in (here, there))
    for request in requests:
        mine, other = ours[request.id], theirs[request.id]
        assert (mine.text, mine.finished, mine.prompt_tokens) == (other.text, other.finished, other.prompt_tokens)


@pytest.mark.parametrize("template", sorted(FAMILIES))
def test_a_servers_own_answer_sent_back_gives_the_tokens_of_training(policies, server, template):
    """As does one with the blank that Janus's and Mistral's forms write before it, which vLLM returns."""
    system, (question, answer, follow_up), last = TRAINED[-1]
    begun = [{"role": "system", "content": system}, {"role": "user", "content": question}]
    said = server.chat(policies / template, begun)["choices"][0]["message"]["content"]
    assert said == answer
    for history in (said, " " + said) if template in ("janus", "mistral", "llama3", "gemma") else (said,):
        turns = [{"role": "assistant", "content": history}, {"role": "user", "content": follow_up}]
        assert server.chat(policies / template, [*begun, *turns])["choices"][0]["message"]["content"] == last


@pytest.mark.parametrize("template", sorted(FAMILIES))
def test_rendered_text_sent_as_text_gets_a_second_bos(policies, server, template):
    """Why docs/serving.md says to use /v1/chat/completions: the other endpoint tokenizes as `tokenizer(text)` does."""
    tokenizer = AutoTokenizer.from_pretrained(policies / template)
    example = next(examples())
    prompt = tokenizer.apply_chat_template(conversation(example), tokenize=False, add_generation_prompt=True)
    length = len(tokenizer(prompt, add_special_tokens=False)["input_ids"])
    body = {"model": str(policies / template), "prompt": prompt, "temperature": 0, "max_tokens": 1}
    reply = server.ask("/v1/completions", body)
    assert reply["usage"]["prompt_tokens"] == length + FAMILIES[template].adds_bos
