"""Who is there, and where: signed states, passed on over connections, believed for seconds, never stored."""
