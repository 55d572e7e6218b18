"""Shows: live to anyone, authentic, spread by those who listen. `docs/broadcast.md` has guide and formats."""
