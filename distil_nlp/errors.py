"""The one exception a user is meant to read."""

from distil_nlp.redaction import redact


class UserError(Exception):
    """A mistake the user can mend: expected / got / consequence / remedy, printed without a traceback.

    Whatever it quotes, no token and no home folder is in it.
    """

    def __init__(self, message: str):
        super().__init__(redact(message))
