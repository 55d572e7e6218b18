"""Carriers: they move opaque bytes and know no sessions. A new one is one file and one line in `CARRIERS`."""
