"""Align one language model to thousands of preferences (Lee et al. 2024, arXiv 2405.17977)."""

import os
import sys

if not sys.stderr.isatty():
    # `datasets` reads it when it is first imported; in a log every step of a bar would be a line.
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
