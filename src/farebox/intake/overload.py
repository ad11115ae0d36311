"""What is said when more waits than is let in."""


class Overloaded(Exception):
    """More events or requests wait for this organization than are let in; try again later."""
