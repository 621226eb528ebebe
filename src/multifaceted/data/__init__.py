"""Data: sources of examples, the template, tokens, batches."""
