"""Training objectives: pure functions of branch log-probabilities (or rewards), one file each.

KTO (Ethayarajh et al. 2024, arXiv 2402.01306) is left out: its reference point z0 is estimated over the batch, from
responses under the prompts of other examples. An example's loss would depend on how the batch was cut, and its tree
would need branches that do not answer its prompt.
"""
