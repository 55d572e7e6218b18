"""Calls: who rings and answers as a value, media by aiortc, and what a program holds."""
