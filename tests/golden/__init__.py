"""Golden repositories: one of every released format version, kept for good, with the code that says what is in them."""
