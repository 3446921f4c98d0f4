"""The Dispatch Wire Protocol without I/O: frames, codecs, and the sessions of both sides as pure state machines.

Nothing in this package opens a socket, reads a clock, starts a thread, draws a random number or logs. Time and
randomness are arguments, bytes go in and out, and everything can be simulated (`dwp_core.testing`).
"""
