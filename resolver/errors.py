"""Why we could not answer. A "no" is an answer with a response code, never one of these."""


class ResolverError(Exception):
    """We could not answer; the message is one line for an operator."""


class RegistryUnavailableError(ResolverError):
    """The registry (PostgreSQL) did not answer in time; nothing is known about the identifier."""


class CacheUnavailableError(ResolverError):
    """The shared cache (Redis) did not answer in time; the registry still can."""


class InvalidIdentifierError(ValueError):
    """A name that cannot be an identifier; says what is wrong with it."""


class InvalidValueError(ValueError):
    """A handle value that breaks a rule or a limit; says which."""
