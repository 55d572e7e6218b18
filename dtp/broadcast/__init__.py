"""Shows: live and authentic streams for anyone, passed on by their listeners. Guide and formats:
`docs/broadcast.md`."""
