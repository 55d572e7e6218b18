"""What `Messenger` is made of."""
