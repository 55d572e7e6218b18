"""Several processes that serve as one daemon: who starts them, and what they share and pass to each other."""
