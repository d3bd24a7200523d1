"""The tape in words and as a drawing: every operation with its formula and numbers, forward and backward."""

from .tape import Trace, record, trace

__all__ = ["Trace", "record", "trace"]
