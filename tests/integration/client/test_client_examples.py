"""The docstrings' examples, run against a real server."""

import doctest

import pytest

from podium.client import Client, _client, _job_handle, _yaml
from podium.jobs import spec as spec_module


@pytest.mark.parametrize("module", [_client, _job_handle, _yaml, spec_module], ids=lambda module: module.__name__)
def test_the_examples_say_the_truth(module, request):
    names: dict[str, object] = {}
    if module in (_client, _job_handle):
        server, spec = request.getfixturevalue("server"), request.getfixturevalue("spec")
        worker, images = request.getfixturevalue("worker"), request.getfixturevalue("images")
        client = Client(server.target)
        request.addfinalizer(client.close)
        job = client.submit(spec)
        worker.step(worker.begin(job.id), 1)
        names = {"client": client, "job": job, "spec": spec, "target": server.target, "data": str(images)}

    tests = doctest.DocTestFinder().find(module, extraglobs=names)
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    results = [runner.run(test) for test in tests]

    assert sum(result.attempted for result in results) > 0
    assert 0 == sum(result.failed for result in results)
