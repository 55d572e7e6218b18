"""What clients read of the chain: objects and balances by page, declarations of packages, values as JSON."""
