"""Measurements against other libraries, in one process and in turn.

They are not tests: nothing in the suite reads a clock.
"""
