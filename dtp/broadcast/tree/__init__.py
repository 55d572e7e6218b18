"""Who hears whom in a show: who has a place, where there is room, and whether a listener serves others."""
