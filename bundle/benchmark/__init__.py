"""Seconds, memory and arithmetic on the machine at hand; nothing heavy is imported here (see ``stages``)."""
