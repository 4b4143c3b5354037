"""Counting: journal, ledger, measures, exposition."""
