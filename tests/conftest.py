"""Nothing but what holds for the whole process: fixtures live next to the tests that use them."""

import os
import signal

from hypothesis import settings

settings.register_profile("fast", max_examples=100, deadline=None)
settings.register_profile("slow", max_examples=2000, deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "fast"))

# `make test &` in a script starts us with Ctrl-C ignored, and so every process that a test sends it to.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
