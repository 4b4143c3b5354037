"""Codecs of the Handle protocol: bytes in, values out."""
