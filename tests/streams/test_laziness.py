"""A store that is idle has not loaded numpy: its edges import it when a stream is at hand."""

import subprocess
import sys

EDGES = ["applier", "content", "decompress", "extract", "guard", "inspection", "make", "snapshot", "writer"]


def test_the_edges_load_no_numpy_and_no_codecs() -> None:
    imports = "; ".join(f"import imagestore.streams.{edge}" for edge in EDGES)
    code = f"import sys; {imports}; print(*({{'numpy', 'lz4', 'zstandard'}} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
