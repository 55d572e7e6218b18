"""Two replicas come to the same: messages as a value, streams that carry them, and parts of a graph."""
