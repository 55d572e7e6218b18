"""Services that speak HTTP: requests past the policies one by one, to backends that are told who came."""
