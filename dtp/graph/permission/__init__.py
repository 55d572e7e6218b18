"""Who may write and read in a graph, whom it takes in, and how much of whom."""
