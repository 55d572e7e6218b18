"""What services of a daemon cost: buying, selling, and the chain."""
