"""What a user can put right, as opposed to a fault of ours."""


class UserError(Exception):
    """A mistake of the user: one line that names the value at fault and the way out.

    Ends a headless run with exit status 2; never shown as a traceback.
    """


class Cancelled(Exception):
    """The stop flag was seen; what was going on has left nothing half done."""
