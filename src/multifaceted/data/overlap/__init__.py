"""Which texts two collections share."""
