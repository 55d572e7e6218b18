"""Where peers are: signed peer records, the book of known ones, the LAN, and links between nodes."""
