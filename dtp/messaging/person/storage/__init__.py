"""The file of a device: contacts, messages, events that are held back or were missed, and how much is kept of each
person.
"""
