"""What was, and what was signed but doesn't count: shown, and made again."""
