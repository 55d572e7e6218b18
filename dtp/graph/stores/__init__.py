"""Where frames are kept, and how a graph comes out of there, also damaged."""
