"""What has no backend, and is answered here: shows, lines for tips, what nodes ask relays."""
