"""What sums have to keep of an author's frames, worked out from these alone."""
