"""Training: one Lightning module, and what happens before and after it."""
