"""What the lab raises where somebody has to do something."""


class LabError(Exception):
    """Something is not as the lab needs it; the message says what to do."""
