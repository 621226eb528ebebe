"""The embedded world: a collection, a bench and rules, all procedural. Pure Python; imports no torch."""
