"""Coverage-guided fuzzing: `python -m fuzz --seconds 60 [TARGET …]`, or `make fuzz SECONDS=60`.

A target is a plain function of bytes that raises when something is wrong. `fuzz.seeds` makes first inputs of the
recordings in `tests/vectors`; `corpus/` holds what fuzzing found worth keeping, `regressions/` what once failed. All of
it is replayed by `make test`, without atheris.
"""
