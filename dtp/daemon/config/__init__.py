"""The daemon's configuration: one TOML file, checked as a whole, becomes one immutable value."""
