"""The page for operators names what there is, and nothing else."""

import re
from pathlib import Path

import yaml

from podium.jobs.job import Node, NodeState, Slot
from podium.jobs.store import MemoryStore
from podium.server import meters
from podium.server.observing import Figures, Lookout

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs/observability.md").read_text(encoding="utf-8").partition("## Health")[0]


def told() -> dict[str, set[str]]:
    """Metric -> labels, as the tables tell; "the same" and "as the first" are those of the first row."""
    rows = re.findall(r"^\| ((?:`[a-z_]+`(?:, )?)+) \|([^|]*)\|", PAGE, re.MULTILINE)
    names = {name: labels for cell, labels in rows for name in re.findall(r"`([a-z_]+)`", cell)}
    first = set(re.findall(r"`([a-z_]+)`", names["grpc_server_started_total"]))
    return {
        name: set(re.findall(r"`([a-z_]+)`", labels)) | (first if re.search(r"the same|the first", labels) else set())
        for name, labels in names.items()
    }


def there() -> dict[str, set[str]]:
    """Metric -> labels, as a server tells them; of histograms without `le`."""
    store = MemoryStore()
    store.heartbeat(Node(id="n1", pool="default", state=NodeState.READY, slots=(Slot(index=0),)))
    lookout = Lookout(store, counts=True)
    lookout._look()
    looked_at = list(Figures(lookout, lambda: True).collect())
    labels = {family.name: {label for one in family.samples for label in one.labels} for family in looked_at}
    of_meters = {
        meter._name: set(meter._labelnames) for meter in vars(meters).values() if hasattr(meter, "_labelnames")
    }
    families = [*meters.REGISTRY.collect(), *looked_at]
    return {
        family.name + "_total" * (family.type == "counter"): labels.get(family.name)
        or of_meters.get(family.name, set())
        for family in families
    }


def test_the_page_has_every_metric_with_its_labels_and_no_other():
    assert len(there()) > 20
    assert there() == told()


def test_the_scrape_configuration_is_one_and_asks_at_the_port_that_is_deployed():
    (job,) = yaml.safe_load((ROOT / "deploy/prometheus/podium.yml").read_text(encoding="utf-8"))["scrape_configs"]
    ports = {target.rpartition(":")[2] for group in job["static_configs"] for target in group["targets"]}

    assert {"9464"} == ports
    assert "9464" in (ROOT / "deploy/kubernetes/base/server.yaml").read_text(encoding="utf-8")


def test_somebody_is_woken_where_no_server_is_left_to_say_that_none_leads():
    (group,) = yaml.safe_load((ROOT / "deploy/prometheus/alerts.yml").read_text(encoding="utf-8"))["groups"]
    rules = {rule["alert"]: rule["expr"] for rule in group["rules"]}

    # A sum of nothing is nothing in PromQL, and no alert.
    assert "(sum(podium_leader) or vector(0)) != 1" == rules["PodiumNobodyLeads"]
