"""A file of weights: whether it may be read, and whether it looks like one that a worker can read."""

from pathlib import Path

from podium.jobs.locations import is_uri, local_path
from podium.server.admission._findings import Findings
from podium.server.admission._paths import Places

_FIELD = "spec.weights.file"
#: How files of torch.save begin: since torch 1.6 they are ZIPs, before that a pickle.
_OF_TORCH = (b"PK\x03\x04", b"\x80")


def check_weights_file(places: Places, location: str, findings: Findings) -> None:
    """Tells the findings where a file cannot be what a worker reads. Blocks: it reads the file's beginning.

    What only the workers may read is left to them, and so is what lies behind a URI.
    """
    if not places.check(_FIELD, location, findings) or is_uri(location):
        return
    path = Path(local_path(location))
    if not path.is_file():
        findings.invalid(_FIELD, f"{path} is no file; name a .safetensors, or a .pth that torch.save has written")
        return
    try:
        with path.open("rb") as file:
            start = file.read(9)
    except OSError:
        return
    # A safetensors file begins with the length of its header, and the header with a brace.
    if start[8:] != b"{" and not start.startswith(_OF_TORCH):
        findings.invalid(
            _FIELD,
            f"{path} is neither a .safetensors nor what torch.save writes; save model.state_dict() and nothing else, "
            "as .safetensors or .pth",
        )
