"""Shows, which the daemon makes or passes on itself. Loaded where a file has one."""
