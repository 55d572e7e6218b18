"""What a daemon is told to do: one TOML file, checked as a whole, becomes one immutable value."""
