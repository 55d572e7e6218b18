"""Several processes that serve as one: who starts them, what they hand one another and share."""
