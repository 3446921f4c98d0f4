"""One target under atheris, in this process, until its time is over: `python -m fuzz.run TARGET CORPUS [FLAG …]`.

Started by `python -m fuzz`; libFuzzer ends the process by itself.
"""

from __future__ import annotations

import random
import sys

import atheris


def main() -> None:
    name, *flags = sys.argv[1:]
    with atheris.instrument_imports(include=["dwp_core", "dispatch", "msgpack", "json", "websockets"]):
        from fuzz.targets import TARGETS

        target = TARGETS[name]
        function = target.function()
    mutation = target.mutation

    def mutate(data: bytes, max_size: int, seed: int) -> bytes:
        rng = random.Random(seed)
        if mutation is None or rng.random() < 0.5:
            changed: bytes = atheris.Mutate(data, max_size)
            return changed
        return mutation(data, rng)[:max_size]

    # libFuzzer starts itself anew for a merge, by this command.
    atheris.Setup([f"{sys.executable} -m fuzz.run {name}", *flags], function, custom_mutator=mutate)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
