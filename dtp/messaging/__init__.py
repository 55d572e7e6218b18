"""Messages between people: sealed end to end, through mailboxes that know neither sender nor content."""
