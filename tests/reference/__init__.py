"""Second implementations of texts, lists and marks, which tests hold ours equal to."""
