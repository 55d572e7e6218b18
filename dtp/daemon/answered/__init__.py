"""Services that have no backend but are answered by the daemon: shows, lines for tips, and the requests that nodes
send to relays."""
