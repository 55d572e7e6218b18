"""dtpd: TOML in, relays out. Policies decide, the server acts."""
