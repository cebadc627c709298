"""The Kubernetes manifests, rendered by kubectl itself, fit Kubernetes and the programs that they start."""

import importlib
import subprocess
import sys
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from podium.jobs.settings import from_environment
from podium.server.__main__ import main as server_command
from podium.server.app import Options
from podium.worker.__main__ import _parse as parse_worker

ROOT = Path(__file__).resolve().parents[2]
OVERLAYS = sorted(path.parent for path in ROOT.glob("deploy/kubernetes/overlays/*/kustomization.yaml"))
KUBECTL = Path(sys.executable).with_name("kubectl")
#: Of which Kubernetes the schemas are.
KUBERNETES = "1.37"
#: What needs a controller that brings its own schema.
FOREIGN = {"ScaledObject"}


@cache
def rendered(overlay: Path) -> tuple[dict[str, Any], ...]:
    """What `kubectl apply -k` would send."""
    run = subprocess.run([KUBECTL, "kustomize", overlay], capture_output=True, text=True, check=False, timeout=60)
    assert 0 == run.returncode, run.stderr
    return tuple(yaml.safe_load_all(run.stdout))


def of_kind(overlay: Path, *kinds: str) -> list[dict[str, Any]]:
    return [thing for thing in rendered(overlay) if thing["kind"] in kinds]


def workloads(overlay: Path) -> Iterator[tuple[str, dict[str, Any], dict[str, Any]]]:
    """The kind of program, the workload, and its pod's spec."""
    for workload in of_kind(overlay, "Deployment", "StatefulSet"):
        template = workload["spec"]["template"]
        yield template["metadata"]["labels"]["app.kubernetes.io/name"], workload, template["spec"]


def container(pod: Mapping[str, Any]) -> dict[str, Any]:
    (only,) = pod["containers"]
    assert isinstance(only, dict)
    return only


def environment(overlay: Path) -> dict[str, str]:
    (settings,) = of_kind(overlay, "ConfigMap")
    return dict(settings["data"])


def selects(selector: Mapping[str, Any], workload: Mapping[str, Any]) -> bool:
    """Whether a selector of equalities or of `In` takes the pods of a workload."""
    labels = workload["spec"]["template"]["metadata"]["labels"]
    assert {"matchLabels", "matchExpressions"} >= selector.keys()
    return selector.get("matchLabels", {}).items() <= labels.items() and all(
        labels.get(rule["key"]) in rule["values"] for rule in selector.get("matchExpressions", ())
    )


pytestmark = pytest.mark.parametrize("overlay", OVERLAYS, ids=lambda path: path.name)


def test_everything_is_what_kubernetes_expects(overlay):
    kinds = set()
    for thing in rendered(overlay):
        kinds.add(thing["kind"])
        assert thing["kind"] == "Namespace" or "podium" == thing["metadata"]["namespace"]
        if thing["kind"] not in FOREIGN:
            kubernetes_validate.validate(thing, KUBERNETES, strict=True)

    assert {"Deployment", "StatefulSet", "Service", "PodDisruptionBudget", "NetworkPolicy", "ConfigMap"} <= kinds


def test_a_stopped_pod_gets_the_time_that_its_program_takes_to_stop(overlay):
    grace = from_environment(environment(overlay) | {"PODIUM_REDIS_PASSWORD_FILE": ""}).leases.grace
    for name, _, pod in workloads(overlay):
        before = container(pod).get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
        needed = {"podium-worker": grace, "podium-server": Options(listen="").grace, "podium-redis": 0}[name]

        # A quarter more: processes are killed, and their jobs given back, after that time.
        assert pod["terminationGracePeriodSeconds"] >= before + 1.25 * needed, name


def test_a_worker_is_drained_before_its_pod_goes(overlay):
    grace = from_environment(environment(overlay) | {"PODIUM_REDIS_PASSWORD_FILE": ""}).leases.grace
    for name, _, pod in workloads(overlay):
        if name == "podium-worker":
            shell, option, words = container(pod)["lifecycle"]["preStop"]["exec"]["command"]
            drain, wait = words.split(" && ")

            assert ("sh", "-c", "kill -TERM 1") == (shell, option, drain)
            # Until the container has ended by itself; else the kubelet would go on while attempts still save.
            assert grace < int(wait.removeprefix("sleep ")) < pod["terminationGracePeriodSeconds"]


def test_nothing_runs_as_root_or_can_write_into_its_image(overlay):
    for name, _, pod in workloads(overlay):
        security, own = pod["securityContext"], container(pod)["securityContext"]

        assert security["runAsNonRoot"], name
        assert (999 if name == "podium-redis" else 10001) == security["runAsUser"], name
        assert "RuntimeDefault" == security["seccompProfile"]["type"]
        assert own["readOnlyRootFilesystem"], name
        assert not own["allowPrivilegeEscalation"], name
        assert ["ALL"] == own["capabilities"]["drop"]
        assert not pod["automountServiceAccountToken"]


def test_the_user_is_the_one_of_the_images(overlay):
    dockerfile = (ROOT / "Dockerfile").read_text()

    assert {"10001"} == {
        str(pod["securityContext"]["runAsUser"]) for name, _, pod in workloads(overlay) if name != "podium-redis"
    }
    assert "useradd --uid 10001" in dockerfile


def test_the_settings_are_read_by_the_programs(overlay, tmp_path, monkeypatch):
    secret = tmp_path / "redis_password"
    secret.write_text("s3cret\n")
    given = environment(overlay)
    mounts = {mount["mountPath"] for _, _, pod in workloads(overlay) for mount in container(pod)["volumeMounts"]}

    settings = from_environment(given | {"PODIUM_REDIS_PASSWORD_FILE": str(secret)})

    assert "/run/secrets/redis_password" == given["PODIUM_REDIS_PASSWORD_FILE"]
    assert {"/run/secrets", settings.artifacts, *settings.data_roots} <= mounts
    assert "s3cret" == settings.redis_password


def test_the_server_finds_the_files_that_its_variables_name(overlay):
    (pod,) = [pod for name, _, pod in workloads(overlay) if name == "podium-server"]
    mounts = [mount["mountPath"] for mount in container(pod)["volumeMounts"]]
    files = {one["name"]: one["value"] for one in container(pod)["env"] if str(one.get("value")).startswith("/")}

    assert [] == [path for path in files.values() if str(Path(path).parent) not in mounts]
    if overlay.name.endswith("-tls"):
        assert {"PODIUM_TLS_CERT", "PODIUM_TLS_KEY"} <= files.keys()
        ports = {one["metadata"]["name"]: one["spec"].get("ports") for one in of_kind(overlay, "Service")}
        assert ["https"] == [port["appProtocol"] for port in ports["podium-server"] if port["name"] == "grpc"]


def test_checkpoints_and_histories_can_be_written_and_images_cannot(overlay):
    settings = from_environment(environment(overlay) | {"PODIUM_REDIS_PASSWORD_FILE": ""})
    for name, _, pod in workloads(overlay):
        if name != "podium-redis":
            read_only = {mount["mountPath"]: mount.get("readOnly", False) for mount in container(pod)["volumeMounts"]}

            assert not read_only[settings.artifacts], name
            assert all(read_only[root] for root in settings.data_roots), name


def test_secrets_are_named_and_never_written_down(overlay):
    assert [] == of_kind(overlay, "Secret")
    for name, _, pod in workloads(overlay):
        assert "podium-redis" in [volume.get("secret", {}).get("secretName") for volume in pod["volumes"]], name


def test_no_server_is_ever_open_and_no_worker_holds_the_admins_token(overlay):
    for name, _, pod in workloads(overlay):
        files = {variable["name"]: variable.get("value") for variable in container(pod).get("env", ())}
        places = {mount["name"]: mount["mountPath"] for mount in container(pod)["volumeMounts"]}
        held = [volume for volume in pod["volumes"] if volume.get("secret", {}).get("secretName") == "podium-admin"]

        assert (name == "podium-server") == bool(held), name
        for volume in held:
            assert f"{places[volume['name']]}/token" == files["PODIUM_ADMIN_TOKEN_FILE"]
            # What the server asks of the file: nothing for others. The group may read, as the pod's own is the file's.
            assert 0o440 == volume["secret"]["defaultMode"]
            assert pod["securityContext"]["fsGroup"] == pod["securityContext"]["runAsGroup"]


def test_the_commands_are_ones_that_the_programs_accept(overlay):
    names = set()
    for name, workload, pod in workloads(overlay):
        names.add(name)
        command = container(pod)["args"]
        if name == "podium-redis":
            assert (ROOT / "deploy/redis/start").exists()
            assert "/usr/local/bin/start-redis" in (ROOT / "Dockerfile").read_text()
            assert ["start-redis"] == command
            continue
        python, flag, module, *arguments = command
        assert ("python", "-m", name.replace("-", ".")) == (python, flag, module)
        assert callable(importlib.import_module(f"{module}.__main__").main)
        if name == "podium-server":
            assert server_command.make_context("podium.server", arguments).params["listen"].startswith("0.0.0.0:")
        else:
            options = parse_worker(arguments)
            gpus = container(pod)["resources"]["limits"].get("nvidia.com/gpu", 0)
            assert ("all" if gpus else None) == options.gpus, workload["metadata"]["name"]

    assert {"podium-server", "podium-worker"} <= names


def test_probes_and_callers_ask_at_the_ports_where_the_server_listens(overlay):
    ((workload, pod),) = [(workload, pod) for name, workload, pod in workloads(overlay) if name == "podium-server"]
    server = container(pod)
    told = server_command.make_context("podium.server", server["args"][3:]).params
    listening = {name: int(told[name].rpartition(":")[2]) for name in ("listen", "metrics_listen")}
    ports = {named["name"]: named["containerPort"] for named in server["ports"]}
    (service,) = [thing for thing in of_kind(overlay, "Service") if thing["metadata"]["name"] == "podium-server"]
    annotations = workload["spec"]["template"]["metadata"]["annotations"]

    assert {"grpc": listening["listen"], "metrics": listening["metrics_listen"]} == ports
    assert [listening["listen"]] == [named["port"] for named in service["spec"]["ports"]]
    assert (str(ports["metrics"]), "/metrics") == (annotations["prometheus.io/port"], annotations["prometheus.io/path"])


def test_a_lost_redis_takes_a_server_out_of_service_and_restarts_none(overlay):
    for name, _, pod in workloads(overlay):
        if name == "podium-server":
            asked = {
                probe: container(pod)[f"{probe}Probe"]["httpGet"] for probe in ("startup", "readiness", "liveness")
            }

            assert {"metrics"} == {at["port"] for at in asked.values()}
            assert ("/healthz", "/readyz", "/healthz") == tuple(at["path"] for at in asked.values())


def test_a_worker_that_cannot_reach_redis_is_not_restarted(overlay):
    for name, _, pod in workloads(overlay):
        if name == "podium-worker":
            assert "livenessProbe" not in container(pod)
            assert "podium.worker.probe" in container(pod)["readinessProbe"]["exec"]["command"]


def test_every_server_and_worker_is_guarded_by_exactly_one_disruption_budget(overlay):
    budgets = of_kind(overlay, "PodDisruptionBudget")
    for name, workload, _ in workloads(overlay):
        guards = [budget for budget in budgets if selects(budget["spec"]["selector"], workload)]

        assert len(guards) == (name != "podium-redis"), workload["metadata"]["name"]


def test_every_stateful_pod_gets_its_name_from_a_service_that_is_there(overlay):
    services = {service["metadata"]["name"]: service["spec"] for service in of_kind(overlay, "Service")}
    for workload in of_kind(overlay, "StatefulSet"):
        service = services[workload["spec"]["serviceName"]]

        assert "None" == service["clusterIP"]
        assert selects({"matchLabels": service["selector"]}, workload)


def test_only_those_who_must_reach_a_pod(overlay):
    policies = [policy["spec"] for policy in of_kind(overlay, "NetworkPolicy")]
    by_name = {name: workload for name, workload, _ in workloads(overlay)}

    def reached_from(target: str) -> set[str]:
        rules = [
            rule
            for policy in policies
            if selects(policy["podSelector"], by_name[target])
            for rule in policy.get("ingress", ())
        ]
        peers = [peer["podSelector"] for rule in rules for peer in rule["from"] if "podSelector" in peer]
        return {name for name, workload in by_name.items() if any(selects(peer, workload) for peer in peers)}

    # What no policy selects would be open to all.
    assert any(policy["podSelector"] == {} and "ingress" not in policy for policy in policies)
    assert {"podium-worker"} == reached_from("podium-worker")
    if "podium-redis" in by_name:
        assert {"podium-server", "podium-worker"} == reached_from("podium-redis")


def test_a_scaler_counts_in_the_slots_and_the_pool_of_what_it_scales(overlay):
    for scaled in of_kind(overlay, "ScaledObject"):
        target = scaled["spec"]["scaleTargetRef"]
        (worker,) = [
            thing
            for thing in of_kind(overlay, target["kind"])
            if (thing["apiVersion"], thing["metadata"]["name"]) == (target["apiVersion"], target["name"])
        ]
        (trigger,) = scaled["spec"]["triggers"]
        only = container(worker["spec"]["template"]["spec"])

        assert ("external", "podium-server.podium.svc.cluster.local:50051") == (
            trigger["type"],
            trigger["metadata"]["scalerAddress"],
        )
        # KEDA shows what this variable holds, and nobody writes that down here.
        (token,) = [named for named in only["env"] if named["name"] == trigger["metadata"]["tokenFromEnv"]]
        assert {"name", "valueFrom"} == token.keys()
        assert int(trigger["metadata"]["slotsPerMachine"]) == only["resources"]["limits"]["nvidia.com/gpu"]
        assert trigger["metadata"]["pool"] == parse_worker(only["args"][3:]).pool
        assert "replicas" not in worker["spec"]


def test_the_ranks_of_one_machine_get_as_much_shared_memory_in_docker_as_on_kubernetes(overlay):
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    in_docker = {services[name]["shm_size"].removesuffix("gb") for name in ("worker", "worker-gpu")}

    for program, _, pod in workloads(overlay):
        if program == "podium-worker":
            volumes = {volume["name"]: volume for volume in pod["volumes"]}
            assert in_docker == {volumes["shm"]["emptyDir"]["sizeLimit"].removesuffix("Gi")}
