"""Published benchmarks: what their judges are asked, how verdicts are read, and the figures that are made of them."""
