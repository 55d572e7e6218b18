"""Sealed shows: keys that rotate, who gets them, and how listeners come by them. Formats: docs/broadcast.md."""
