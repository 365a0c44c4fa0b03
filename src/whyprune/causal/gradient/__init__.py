"""Effects from derivatives, first order and second."""
