"""Services that speak HTTP: each request has to pass the policies, and backends are told who the caller is."""
