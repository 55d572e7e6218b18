"""Questions to a graph in openCypher's reading part, answered by SQLite over an index in memory."""
