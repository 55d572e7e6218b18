"""Who is where: signed peer records, the book of those that are known, the LAN, links between nodes."""
