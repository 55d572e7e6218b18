"""Files beside a graph: kept in chunks, and brought over connections."""
