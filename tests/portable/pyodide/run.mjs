// Runs pytest in Pyodide: node run.mjs FOLDER ARGUMENTS..., where FOLDER has the packages, and the tree in FOLDER/src.
import { loadPyodide } from "pyodide";

const [folder, ...args] = process.argv.slice(2);
const python = await loadPyodide();
python.FS.mkdir("/here");
python.FS.mount(python.FS.filesystems.NODEFS, { root: folder }, "/here");
python.globals.set("arguments", python.toPy(args));
process.exitCode = await python.runPythonAsync(`
import importlib.util, os, sys

sys.path[:0] = ["/here/src", "/here"]
os.chdir("/here/src")

import msgpack, pytest
from dwp_core.codec import get_codec

assert importlib.util.find_spec("msgspec") is None
assert get_codec("json").form == get_codec("msgpack").form == "portable"
print("Python", sys.version.split()[0], "on", sys.platform, flush=True)
int(pytest.main(list(arguments)))
`);
