"""Judges' templates that cannot be read are refused with what to fetch."""

import pytest

from multifaceted.data.bad_rows import DataError
from multifaceted.evaluation.protocols.templates import (
    read_chatml_template,
    read_fastchat_templates,
    read_yaml_template,
)


@pytest.mark.parametrize("read", [read_chatml_template, read_fastchat_templates, read_yaml_template])
def test_a_file_that_is_not_there_is_named(read, tmp_path):
    with pytest.raises(DataError, match=r"judge\.txt does not exist"):
        read(tmp_path / "judge.txt")


@pytest.mark.parametrize("text", ["", "Which is better?", "<|im_start|>system\nYou compare.\n<|im_end|>"])
def test_a_prompt_file_without_a_user_message_is_refused(text, tmp_path):
    (tmp_path / "judge.txt").write_text(text)
    with pytest.raises(DataError, match=r"judge\.txt has no message between .*; name AlpacaEval's prompt file"):
        read_chatml_template(tmp_path / "judge.txt")


def test_a_system_message_may_be_missing(tmp_path):
    (tmp_path / "judge.txt").write_text("<|im_start|>user\nWhich is better?\n<|im_end|>")
    template = read_chatml_template(tmp_path / "judge.txt")
    assert template.messages({}) == [{"role": "user", "content": "Which is better?"}]
