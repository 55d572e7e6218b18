"""The process that systemd, an operator or a test starts: signals, control socket, upgrades."""
