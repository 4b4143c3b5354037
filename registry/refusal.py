"""When the book refuses: what is wrong, and what to do next."""


class RefusalError(Exception):
    """Nothing was changed; `str()` is one line that says why, `do` what to do next."""

    def __init__(self, message: str, do: str) -> None:
        super().__init__(message)
        self.do = do


class InvalidEntryError(RefusalError):
    """An entry that breaks a rule or a limit."""


class ConflictError(RefusalError):
    """The book already says something else."""


class UnknownEntryError(RefusalError):
    """What was named is not in the book."""
