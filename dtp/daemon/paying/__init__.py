"""Money in a daemon: buying, selling, and what it does on the chain."""
