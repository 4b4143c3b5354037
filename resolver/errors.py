"""Why we could not answer. A "no" is an answer with a response code, never one of these."""


class ResolverError(Exception):
    """We could not answer; the message is one line for an operator."""


class RegistryUnavailable(ResolverError):
    """The registry (PostgreSQL) did not answer in time; nothing is known about the identifier."""


class CacheUnavailable(ResolverError):
    """The shared cache (Redis) did not answer in time; the registry still can."""


class InvalidIdentifier(ValueError):
    """A name that cannot be an identifier; says what is wrong with it."""


class InvalidValue(ValueError):
    """A handle value that breaks a rule or a limit; says which."""
