"""What queries know of a graph: which nodes a pattern can be about, and the tables that have them."""
