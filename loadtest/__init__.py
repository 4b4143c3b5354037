"""Load tests: stand outside, like a client."""
