"""A tiny classifier of texts with random weights, as a folder."""

import torch
from transformers import RobertaConfig, RobertaForSequenceClassification

from multifaceted.model.tokenizer import train_tokenizer

DETOXIFY = ("toxicity", "severe_toxicity", "obscene")


def write_classifier(folder, labels=DETOXIFY, seed=0, **settings):
    """Write it; the context is 64 tokens. RoBERTa counts positions from its padding token."""
    tokenizer = train_tokenizer(["you are a fool and they said so, times and times again"] * 3, 300)
    tokenizer.model_max_length = 64
    torch.manual_seed(seed)
    config = RobertaConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=64 + tokenizer.pad_token_id + 1,
        pad_token_id=tokenizer.pad_token_id,
        initializer_range=0.5,
        id2label=dict(enumerate(labels)),
        label2id={label: place for place, label in enumerate(labels)},
        **settings,
    )
    RobertaForSequenceClassification(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
