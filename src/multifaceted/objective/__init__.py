"""Training objectives: pure functions of branch log-probabilities (or rewards), one file each."""
