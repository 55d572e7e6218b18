"""The tree of a show: who sends to whom, who has a place, where there is room, and whether a listener serves
others."""
