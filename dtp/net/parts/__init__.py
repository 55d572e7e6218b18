"""What a connection is made of: each part keeps one thing, and knows the session but not the connection."""
