"""Why the node cannot start."""


class StartError(Exception):
    """The node cannot start; one line that says why and what to do."""
