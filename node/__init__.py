"""The process: doors, wiring, life, command line."""
