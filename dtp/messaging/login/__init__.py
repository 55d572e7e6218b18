"""Accounts with names and passwords, for people who come with another wallet each time, by OPAQUE (RFC 9807); and
the vaults of these accounts.
"""
