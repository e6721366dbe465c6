"""All models on one split in one run: tuned alike on valid, measured once on test, compared.

:mod:`~mmalign.benchmark.plan` says what is to be done, :mod:`~mmalign.benchmark.runs` does it, a
child process at a time, and :mod:`~mmalign.benchmark.comparison`, ``table`` and ``plots`` say what
came out.
"""
