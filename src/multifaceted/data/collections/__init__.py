"""Published collections, each read from the columns in which it was published."""
