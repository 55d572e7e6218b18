"""`dtp chat`: the terminal program for conversations."""
