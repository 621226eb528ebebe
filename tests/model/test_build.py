"""What a user is told of a model that is not there."""

import pytest

from multifaceted.model.build import PretrainedModel


def test_a_model_that_cannot_be_had_is_named_with_what_to_do():
    source = PretrainedModel(name="someone/nothing", revision="v1")
    for attempt in (lambda: source.load_tokenizer([]), source.base):
        with pytest.raises(ValueError, match="the model someone/nothing cannot be had: ") as refusal:
            attempt()
        said = str(refusal.value)
        assert "hf download someone/nothing --revision v1 --local-dir FOLDER; here, model.name=FOLDER" in said
