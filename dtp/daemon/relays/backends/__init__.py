"""The backends of an exposed service: which one a stream goes to, whether it lives, how it is reached."""
