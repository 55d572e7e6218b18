"""What programs that use dtp test themselves with: virtual time, pairs in memory, contract checks."""
