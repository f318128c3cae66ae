"""What identity refuses. No message repeats a token."""

from freehold.problems import Problem


class InvalidApiKey(Problem):
    """This API key or token is not known here. Check it for a missing character, or create a key with `freehold keys create`."""

    status = 401
    code = "invalid_api_key"
    type = "authentication_error"
    retry = False


class NoCredentials(InvalidApiKey):
    """No API key was sent. Send it as `Authorization: Bearer fh_…`; `freehold keys create` makes one."""


class NotAnApiKey(InvalidApiKey):
    """This is {kind} token, and this route takes an API key. Create one with `freehold keys create`."""


class SessionExpired(Problem):
    """This session has ended. Sign in again with the wallet."""

    status = 401
    code = "session_expired"
    type = "authentication_error"
    retry = False


class InvalidSignInMessage(Problem):
    """The sign-in message can't be read as EIP-4361: {reason}."""

    code = "invalid_request"
    retry = False


class SignInRefused(Problem):
    """The sign-in was refused: {reason}."""

    status = 401
    code = "sign_in_refused"
    type = "authentication_error"
    retry = False


class InsufficientScope(Problem):
    """This key's scopes are {scopes}; this needs the scope {needed}. Use a key that has it, or sign in."""

    status = 403
    code = "insufficient_scope"
    type = "permission_error"
    retry = False


class InsufficientRole(Problem):
    """This needs {needed}; you are {role} here. Ask an owner of the account."""

    status = 403
    code = "insufficient_role"
    type = "permission_error"
    retry = False


class OperatorOnly(Problem):
    """This is for the operator of the server: send the admin token that was printed at the first start."""

    status = 403
    code = "operator_only"
    type = "permission_error"
    retry = False
