"""Models: loading, attention over preference trees, scoring of branches, export."""
