"""`dtp graph`: look into a graph's file, change it, and sync it with others."""
