"""The side that is paid: what a connection owes, and bringing vouchers to the chain."""
