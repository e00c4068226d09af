"""Run the notebooks, and keep their outputs clean."""

import base64
import io
import os
import tempfile
from typing import Any

import nbformat
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from PIL import Image
from rich.console import Console

from lab.chapters import ROOT, LabError
from lab.plan import FOLDER, LARGEST, paths

TIMEOUT = 300  # seconds that one cell may take


def run(names: list[str]) -> int:
    """Run notebooks from top to bottom and write their outputs into their files."""
    console = Console(highlight=False)
    for path in paths(names):
        console.print(f"{path.name} …")
        notebook = nbformat.read(path, as_version=4)
        try:
            execute(notebook)
        except CellExecutionError as error:
            console.print(str(error), markup=False)
            return 1
        tidy(notebook)
        nbformat.write(notebook, path)
        if (size := path.stat().st_size) > LARGEST:
            raise LabError(f"{path.name} has {size} bytes; it may have {LARGEST}.")
    return 0


def execute(notebook: Any) -> None:
    """Run all cells in a fresh kernel, in the folder of the notebooks.

    Raises CellExecutionError, with the cell and its traceback, if one fails.
    """
    with tempfile.TemporaryDirectory(prefix="unblocked-") as place:
        # Sockets in a folder of its own, not ports that others on this machine could reach.
        manager = AsyncKernelManager(transport="ipc", ip=f"{place}/kernel")
        where = {"metadata": {"path": str(FOLDER)}}
        client = NotebookClient(notebook, km=manager, timeout=TIMEOUT, resources=where)
        client.execute(env=environment(), cleanup_kc=True)


def environment() -> dict[str, str]:
    """The variables of a kernel: it finds `lab`, and prints no colour codes."""
    return {**os.environ, "PYTHONPATH": str(ROOT), "NO_COLOR": "1"}


def tidy(notebook: Any) -> None:
    """Take out what changes with each run and says nothing: times and bars; make plots small."""
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if not is_bar(output)]
            for output in cell.outputs:
                if "image/png" in output.get("data", {}):
                    output.data["image/png"] = smaller(output.data["image/png"])


def smaller(png: str) -> str:
    """A plot in 128 colours, which it has no need of more: a quarter of the size. In base64."""
    image = Image.open(io.BytesIO(base64.b64decode(png))).convert("RGB").quantize(128)
    file = io.BytesIO()
    image.save(file, "PNG", optimize=True)
    return base64.b64encode(file.getvalue()).decode()


def is_bar(output: Any) -> bool:
    """Whether an output is nothing but a progress bar."""
    return output.get("name") == "stderr" and "\r" in output.text
