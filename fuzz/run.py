"""One target under atheris, in this process, until its time is over: `python -m fuzz.run TARGET CORPUS [FLAG …]`.

Started by `python -m fuzz`; libFuzzer ends the process by itself.
"""

from __future__ import annotations

import sys

import atheris


def main() -> None:
    name, *flags = sys.argv[1:]
    with atheris.instrument_imports(include=["dwp_core", "dispatch", "msgpack", "json", "websockets"]):
        from fuzz.targets import TARGETS

        target = TARGETS[name].function()
    atheris.Setup([sys.argv[0], *flags], target)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
