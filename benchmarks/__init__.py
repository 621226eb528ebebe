"""Speed and memory of training, side by side with the best peer; `python -m benchmarks --help`."""
