"""The one exception that is meant for the person at the keyboard."""


class InputError(Exception):
    """Something the user gave cannot be used.

    The message is one line and says what was given, what was expected and what to do, naming the file, key or clip.
    Command lines print it and exit with status 1; it never reaches a user as a traceback.
    """
