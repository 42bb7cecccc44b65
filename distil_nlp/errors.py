"""The one exception a user is meant to read."""


class UserError(Exception):
    """A mistake the user can mend: expected / got / consequence / remedy, printed without a traceback."""
