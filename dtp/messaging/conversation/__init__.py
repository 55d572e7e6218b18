"""What is said: events, and what a conversation looks like after them; who is in a group. Values without IO."""
