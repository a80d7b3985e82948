"""The Flower app bundle (FAB) of a job: data only, because the code that runs it is what each side installed.

A bundle is a ZIP archive of a project description, the job's files, and `.info/CONTENT`, a line `path,sha256,bits`
for each. It is written here rather than by `flwr.cli.build`, which imports the whole command line for it; a contract
test has flwr install what this module writes. The same job gives the same bytes, and so Flower's own bundle hash
binds the job too.
"""

from __future__ import annotations

import hashlib
import io
import zipfile

from coordinator.errors import SettingError

MAX_SIZE = 10 << 20  # bytes, Flower's limit
_DATE = (2024, 10, 1, 0, 0, 0)  # any fixed one: a bundle has no time of its own
# No `fab-format-version`: version 1 asks for a license file and for flwr among the dependencies. Flower asks for a
# ClientApp; hospitals run a node of their own instead, and a stock one finds nothing to run.
_PROJECT = """\
[project]
name = "job"
version = "1.0.0"
license = "Apache-2.0"

[tool.flwr.app]
publisher = "wardround"

[tool.flwr.app.components]
serverapp = "coordinator.server_app:app"
clientapp = "none:app"

[tool.flwr.app.config]
job = "{digest}"
"""


def bundle(job: bytes, model_code: bytes | None = None) -> bytes:
    """Return the bundle that carries a job.

    Args:
        job: The job as canonical JSON. Its SHA-256 is what the ServerApp is told.
        model_code: The job's own `model.py`, when its model is not a built-in one.

    Raises:
        SettingError: The bundle is larger than Flower takes.
    """
    project = _PROJECT.format(digest=hashlib.sha256(job).hexdigest())
    files = {"pyproject.toml": project.encode(), "job.json": job}
    if model_code is not None:
        files["model.py"] = model_code
    lines = [f"{path},{hashlib.sha256(data).hexdigest()},{8 * len(data)}" for path, data in files.items()]
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as zipped:
        for path, data in {**files, ".info/CONTENT": "\n".join(lines).encode()}.items():
            zipped.writestr(zipfile.ZipInfo(path, _DATE), data)
    content = archive.getvalue()
    if len(content) > MAX_SIZE:
        raise SettingError(f"the job and its model.py are {len(content)} bytes; Flower takes {MAX_SIZE}")
    return content
