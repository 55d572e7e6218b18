"""What keeps a graph small."""
