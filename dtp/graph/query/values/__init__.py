"""What openCypher says of values, and the functions that it has of them."""
