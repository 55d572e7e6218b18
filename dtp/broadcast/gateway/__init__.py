"""A show for browsers and players: HLS (RFC 8216), and a page that plays it, over plain HTTP on this machine."""
