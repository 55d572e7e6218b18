"""dtpd: reads a TOML file and runs relays. Policies decide, and the server acts on their decisions."""
