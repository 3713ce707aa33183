"""What production runs on, looked at by the tools that will read it, and by what stands in it."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
import tomllib
import types
from importlib import metadata
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from conftest import write_scene
from packaging.specifiers import SpecifierSet

from citycover.job.watch import Watch

ROOT = Path(__file__).parent.parent.parent
PRODUCTION = ROOT / "configs/production"
MONITORING = PRODUCTION / "monitoring"


def loaded(path: Path) -> Any:
    return yaml.safe_load(path.read_text())


def tool(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


def checked(*command: str | Path, cwd: Path | None = None) -> str:
    done = subprocess.run(
        [str(word) for word in command], check=False, capture_output=True, text=True, timeout=120, cwd=cwd
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_commands_of_schedulers_and_docs_exist_with_all_their_options() -> None:
    from typer.main import get_command

    from citycover_cli.app import app

    verbs = get_command(app()).commands  # type: ignore[attr-defined]
    found = []
    for path in [*PRODUCTION.rglob("*"), ROOT / "docs/production.md"]:
        if path.is_file() and path.suffix != ".json":
            found += re.findall(
                r"\bcitycover (?:run|status|doctor|map|plan) [^\n'\"&|;)`{#]*", path.read_text()
            )
    assert len(found) >= 15
    for command in found:
        verb, *rest = shlex.split(command)[1:]
        known = {option for parameter in verbs[verb].params for option in parameter.opts}
        assert {word for word in rest if word.startswith("-")} <= known, command


def write_region(folder: Path) -> None:
    (folder / "region.toml").write_text(
        'name = "north"\nout = "products"\nmodel = "spectral-rgbn"\n[[scenes]]\nfiles = ["im/*.tif"]\n'
    )


# --- schedulers


def test_systemd_takes_the_units(tmp_path: Path) -> None:
    verify = tool("systemd-analyze")
    for unit in (PRODUCTION / "systemd").iterdir():
        text = unit.read_text().replace("/opt/citycover/bin/citycover", sys.executable)
        (tmp_path / unit.name.replace("@", "@north")).write_text(text)
    done = subprocess.run(
        [verify, "verify", "--man=no", *tmp_path.iterdir()], check=False, capture_output=True, text=True
    )
    assert not [line for line in done.stderr.splitlines() if "citycover@" in line], done.stderr


def test_a_stop_and_failed_scenes_are_no_failures_of_the_unit() -> None:
    text = (PRODUCTION / "systemd/citycover@.service").read_text()
    codes = re.search(r"^SuccessExitStatus=(.*)$", text, re.MULTILINE)
    assert codes is not None
    assert {int(code) for code in codes[1].split()} == {3, 6, 143}


def test_the_table_of_cron_has_five_times_a_user_and_a_command() -> None:
    lines = (PRODUCTION / "citycover.cron").read_text().splitlines()
    (line,) = [line for line in lines if re.match(r"[\d*]", line)]
    *times, user = line.split()[:6]
    assert all(
        value == "*" or 0 <= int(value) <= most
        for value, most in zip(times, (59, 23, 31, 12, 7), strict=True)
    )
    assert user == "citycover"
    assert "citycover run region.toml" in line
    assert "%" not in line  # cron takes it for the end of the line


@pytest.mark.root
def test_cron_runs_the_table_and_a_region_is_mapped(tmp_path: Path) -> None:
    """Debian's cron, where there is no other table; every minute instead of every month."""
    cron = tool("cron")
    if os.geteuid() != 0:
        pytest.skip("needs root: cron does")
    write_scene(tmp_path / "im/a.tif", (300, 200))
    write_region(tmp_path)
    (tmp_path / "bin").mkdir()
    command = tmp_path / "bin/citycover"
    command.write_text(
        f'#!/bin/sh\nPYTHONPATH={os.pathsep.join(sys.path)} exec {sys.executable} -m citycover_cli "$@"\n'
    )
    command.chmod(0o755)
    table = (PRODUCTION / "citycover.cron").read_text()
    mine = {"17 2 3 * * citycover": "* * * * * root"}
    mine |= dict.fromkeys(("/opt/citycover", "/srv/citycover", "/var/lib/node_exporter"), str(tmp_path))
    for was, becomes in mine.items():
        assert was in table
        table = table.replace(was, becomes)
    (tmp_path / "cron.d").mkdir()
    (tmp_path / "cron.d/citycover").write_text(table)
    (tmp_path / "cron.d/citycover").chmod(0o644)
    (tmp_path / "crontab").touch(0o644)
    script = """set -e; cd "$1"
        mount --make-rprivate /
        mount --bind cron.d /etc/cron.d; mount --bind crontab /etc/crontab; mount -t tmpfs tmpfs /run
        exec "$2" -f"""
    words = ["unshare", "--mount", "sh", "-c", script, "sh", str(tmp_path), cron]
    product = tmp_path / "products/maps/a/landcover.tif"
    with subprocess.Popen(words) as daemon:
        try:
            end = time.monotonic() + 150
            while not (tmp_path / "citycover.prom").exists() or not product.exists():
                assert daemon.poll() is None
                assert time.monotonic() < end
                time.sleep(0.5)
        finally:
            daemon.terminate()
    assert (tmp_path / "run.log").read_text()


@pytest.mark.parametrize(
    "path",
    [*PRODUCTION.rglob("*.sh"), *ROOT.glob("docker/*.sh"), *ROOT.glob("tests/*/*.sh")],
    ids=lambda path: path.name,
)
def test_shell_scripts_have_no_findings(path: Path) -> None:
    checked(tool("shellcheck"), path)


def test_a_slurm_array_ends_softly_and_is_queued_anew(tmp_path: Path) -> None:
    for name, text in {
        "citycover": '#!/bin/sh\necho "$@" > asked\ntrap "exit 143" TERM\n'
        "touch ready\nwhile :; do sleep 0.05; done\n",
        "scontrol": '#!/bin/sh\necho "$@" > requeued\n',
    }.items():
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    environment = {"SLURM_ARRAY_TASK_ID": "3", "SLURM_ARRAY_TASK_COUNT": "8", "SLURM_ARRAY_JOB_ID": "77"}
    script = subprocess.Popen(
        ["bash", PRODUCTION / "slurm/array.sh", "region.toml"],
        cwd=tmp_path,
        env={**environment, "PATH": f"{tmp_path}:/usr/bin:/bin"},
    )
    while not (tmp_path / "ready").exists():
        assert script.poll() is None
    script.terminate()
    assert script.wait(timeout=60) == 143
    assert "--shard 3/8" in (tmp_path / "asked").read_text()
    assert (tmp_path / "requeued").read_text() == "requeue 77_3\n"


@pytest.mark.parametrize("name", ["volume", "job", "cronjob", "indexed-job"])
def test_kubernetes_takes_the_manifests(name: str, tmp_path: Path) -> None:
    validate = tool("kubernetes-validate")
    text = (PRODUCTION / f"kubernetes/{name}.yaml").read_text()
    # The server makes a name of `generateName`; the tool wants one.
    (tmp_path / "manifest.yaml").write_text(text.replace("generateName:", "name:"))
    checked(validate, "--strict", tmp_path / "manifest.yaml")


@pytest.mark.parametrize("name", ["job", "cronjob", "indexed-job"])
def test_pods_run_as_the_image_is_meant_to(name: str) -> None:
    manifest = loaded(PRODUCTION / f"kubernetes/{name}.yaml")
    spec = manifest["spec"]["jobTemplate"]["spec"] if name == "cronjob" else manifest["spec"]
    pod = spec["template"]["spec"]
    (container,) = pod["containers"]
    assert pod["restartPolicy"] == "Never"
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert container["resources"]["limits"]["nvidia.com/gpu"] == "1"
    claims = [v["persistentVolumeClaim"]["claimName"] for v in pod["volumes"] if "persistentVolumeClaim" in v]
    assert claims == [loaded(PRODUCTION / "kubernetes/volume.yaml")["metadata"]["name"]]
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    assert mounts == {"data": "/data", "tmp": "/tmp"}
    assert set(mounts) == {volume["name"] for volume in pod["volumes"]}


def test_each_index_of_a_job_is_another_part() -> None:
    spec = loaded(PRODUCTION / "kubernetes/indexed-job.yaml")["spec"]
    assert spec["completionMode"] == "Indexed"
    (line,) = spec["template"]["spec"]["containers"][0]["args"]
    shard = re.search(r'--shard ("[^"]*")', line)
    assert shard is not None
    parts = {
        checked("sh", "-c", f"JOB_COMPLETION_INDEX={index}; echo {shard[1]}").strip()
        for index in range(spec["completions"])
    }
    assert parts == {f"{part}/8" for part in range(1, 9)}


def strict(schema: Any) -> Any:
    """A schema of the API server, which knows no field but those that it names."""
    if isinstance(schema, list):
        return [strict(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    told = {name: strict(part) for name, part in schema.items()}
    if isinstance(told.get("properties"), dict) and "x-kubernetes-preserve-unknown-fields" not in told:
        told.setdefault("additionalProperties", False)
    return told


def test_the_operator_of_dask_takes_the_cluster() -> None:
    found = importlib.util.find_spec("dask_kubernetes")
    if found is None or found.origin is None:
        pytest.skip("dask-kubernetes, which has the schemas, is not installed")
    schemas = Path(found.origin).parent / "operator/deployment/helm/dask-kubernetes-operator/crds"
    manifests = list(yaml.safe_load_all((PRODUCTION / "kubernetes/dask-cluster.yaml").read_text()))
    assert [manifest["kind"] for manifest in manifests] == ["DaskCluster", "DaskAutoscaler"]
    for manifest in manifests:
        (version,) = loaded(schemas / f"{manifest['kind'].lower()}.yaml")["spec"]["versions"]
        spec = strict(version["schema"]["openAPIV3Schema"])["properties"]["spec"]
        jsonschema.validate(manifest["spec"], spec)
        jsonschema.Draft202012Validator.check_schema(spec)
    (worker,) = manifests[0]["spec"]["worker"]["spec"]["containers"]
    assert worker["command"][:2] == ["dask", "worker"]


class _Operator:
    """Stands in for Airflow's: what it was given, and what comes after it."""

    def __init__(self, **given: Any) -> None:
        self.given = given
        self.after: list[_Operator] = []

    def __rshift__(self, other: _Operator) -> _Operator:
        self.after.append(other)
        return other


class _Dag:
    def __init__(self, **given: Any) -> None:
        self.given = given

    def __enter__(self) -> _Dag:
        return self

    def __exit__(self, *_: object) -> None: ...


def test_the_dag_of_airflow_maps_every_part_between_doctor_and_status(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def module(name: str, **content: Any) -> None:
        made = types.ModuleType(name)
        vars(made).update(content)
        monkeypatch.setitem(sys.modules, name, made)

    for name in ("airflow", "airflow.providers", "airflow.providers.standard"):
        module(name)
    module("airflow.sdk", DAG=_Dag, Variable=types.SimpleNamespace(get=lambda _name, default: default))
    module("airflow.providers.standard.operators")
    module("airflow.providers.standard.operators.bash", BashOperator=_Operator)
    spec = importlib.util.spec_from_file_location("dag", PRODUCTION / "airflow/citycover_region.py")
    assert spec is not None and spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    assert (made.dag.given["max_active_runs"], made.dag.given["catchup"]) == (1, False)
    assert set(made.fit.after) == {made.plan}
    shards = [re.search(r"--shard (\S+)", part.given["bash_command"]) for part in made.plan.after]
    assert [shard[1] for shard in shards if shard] == [f"{part}/8" for part in range(1, 9)]
    assert all(part.after == [made.done] for part in made.plan.after)


# --- watching


@pytest.fixture
def exported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Names of all samples that an endpoint answers with, on a machine with a GPU, when a run has ended."""
    from prometheus_client.parser import text_string_to_metric_families

    from citycover.machine.stages import Stages
    from citycover_cli.metrics import metering

    gpu = types.SimpleNamespace(
        is_available=lambda: True, is_initialized=lambda: True, device_count=lambda: 1,
        mem_get_info=lambda _number: (60, 100), utilization=lambda _number: 25,
    )  # fmt: skip
    monkeypatch.setitem(sys.modules, "torch", types.SimpleNamespace(cuda=gpu))
    with metering(str(tmp_path / "run.prom"), "run", "north") as meter:
        stages = Stages()
        stages.add("read", 1.0)
        stages.follow("encode", lambda: 1)
        meter.beside(Watch()).timing(stages)
        meter.work(2)
        meter.scene_ended("mapped")
    families = text_string_to_metric_families((tmp_path / "run.prom").read_text())
    return {sample.name for family in families for sample in family.samples}


def asked_for(text: str) -> set[str]:
    return set(re.findall(r"\bcitycover_\w+", text))


def rules() -> dict[str, dict[str, Any]]:
    groups = loaded(MONITORING / "alerts.yml")["groups"]
    return {rule["alert"]: rule for group in groups for rule in group["rules"]}


def test_the_dashboard_shows_all_metrics_and_no_others(exported: set[str]) -> None:
    assert asked_for((MONITORING / "grafana/citycover.json").read_text()) == exported


def test_prometheus_takes_every_expression_of_the_dashboard(tmp_path: Path) -> None:
    text = (MONITORING / "grafana/citycover.json").read_text().replace("$instance", ".*")
    panels = json.loads(text)["panels"]
    rules = [
        {"record": f"panel:{panel['id']}:{target['refId']}", "expr": target["expr"]}
        for panel in panels
        for target in panel["targets"]
    ]
    assert len(rules) > len(panels)
    groups = {"groups": [{"name": "dashboard", "rules": rules}]}
    (tmp_path / "dashboard.yml").write_text(yaml.safe_dump(groups))
    checked(tool("promtool"), "check", "rules", tmp_path / "dashboard.yml")


def test_grafana_s_own_types_take_the_dashboard() -> None:
    """Grafana itself is in no registry of packages: its models, which it makes from its schemas, are."""
    models = pytest.importorskip("grafana_foundation_sdk.models.dashboard")
    told = json.loads((MONITORING / "grafana/citycover.json").read_text())
    read = models.Dashboard.from_json(told)
    assert [panel.type_val for panel in read.panels] == [panel["type"] for panel in told["panels"]]
    known = set(models.Dashboard().to_json()) | set(read.to_json())
    assert set(told) <= known, "fields that no dashboard has"
    for panel, given in zip(read.panels, told["panels"], strict=True):
        assert set(given) <= set(panel.to_json()), given["title"]
    assert [variable.name for variable in read.templating.list_val] == ["datasource", "instance"]


def test_rules_ask_for_metrics_that_are_exported_and_say_what_to_do(exported: set[str]) -> None:
    assert {"CitycoverStalled", "CitycoverFailing", "CitycoverDiskFull"} <= set(rules())
    for rule in rules().values():
        assert asked_for(rule["expr"]) <= exported
        assert rule["annotations"]["summary"]
        assert rule["labels"]["severity"] in {"info", "warning", "critical"}


def test_prometheus_takes_the_rules_and_they_fire_when_they_should() -> None:
    promtool = tool("promtool")
    checked(promtool, "check", "rules", MONITORING / "alerts.yml")
    checked(promtool, "test", "rules", "alerts_test.yml", cwd=MONITORING)


def test_prometheus_takes_its_configuration(tmp_path: Path) -> None:
    promtool = tool("promtool")
    text = (MONITORING / "prometheus.yml").read_text()
    (tmp_path / "prometheus.yml").write_text(text.replace("/etc/prometheus/", ""))
    shutil.copy(MONITORING / "alerts.yml", tmp_path)
    checked(promtool, "check", "config", "prometheus.yml", cwd=tmp_path)


def test_panels_of_the_dashboard_do_not_overlap() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in json.loads((MONITORING / "grafana/citycover.json").read_text())["panels"]:
        at = panel["gridPos"]
        cells = {(at["x"] + dx, at["y"] + dy) for dx in range(at["w"]) for dy in range(at["h"])}
        assert not cells & taken, panel["title"]
        assert at["x"] + at["w"] <= 24
        taken |= cells


# --- images


def services() -> dict[str, Any]:
    found: dict[str, Any] = loaded(ROOT / "compose.yaml")["services"]
    return found


def test_compose_has_workers_with_gpus_and_mounts_files_that_are_there() -> None:
    assert set(services()) == {"scheduler", "worker", "citycover", "prometheus", "grafana"}
    (device,) = services()["worker"]["deploy"]["resources"]["reservations"]["devices"]
    assert device == {"driver": "nvidia", "count": 1, "capabilities": ["gpu"]}
    for name, service in services().items():
        for volume in service["volumes"]:
            assert not volume.startswith("./") or (ROOT / volume.split(":")[0]).is_file(), volume
        assert set(service.get("depends_on", {})) <= set(services())
        if name in {"scheduler", "worker", "citycover"}:
            assert (service["read_only"], service["tmpfs"]) == (True, ["/tmp"])


def test_prometheus_looks_where_the_job_serves() -> None:
    (job,) = loaded(MONITORING / "prometheus.yml")["scrape_configs"]
    (target,) = job["static_configs"][0]["targets"]
    host, port = target.split(":")
    command = services()[host]["command"]
    assert command[command.index("--metrics") + 1].endswith(f":{port}")


def test_compose_is_taken_by_docker() -> None:
    docker = tool("docker")
    if subprocess.run([docker, "compose", "version"], check=False, capture_output=True).returncode:
        pytest.skip("docker has no compose here")
    checked(docker, "compose", "--file", ROOT / "compose.yaml", "config", "--quiet")


def test_compose_is_what_its_specification_says() -> None:
    checked(tool("check-jsonschema"), "--builtin-schema", "vendor.compose-spec", ROOT / "compose.yaml")


def pinned(path: Path) -> dict[str, str]:
    found = re.findall(r"^([\w.-]+)==([^\s\\;]+)", path.read_text(), re.MULTILINE)
    return {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in found}


@pytest.mark.parametrize("lock", ["runtime", "train", "dev", "build", "torch-cuda"])
def test_locks_say_the_versions_of_the_constraints_and_a_hash_for_each(lock: str) -> None:
    constraints = pinned(ROOT / "constraints.txt")
    path = ROOT / f"docker/locks/{lock}.txt"
    found = pinned(path)
    assert found
    assert {name: constraints.get(name, version) for name, version in found.items()} == found
    blocks = re.split(r"^(?=[\w.-]+==)", path.read_text(), flags=re.MULTILINE)[1:]
    assert all("--hash=sha256:" in block for block in blocks)


def test_pinned_versions_run_on_the_first_python_that_is_promised() -> None:
    """Debian 12 has Python 3.11.2: what asks for a later patch ends the build of an image there."""
    promised = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"]
    first = f"{promised.removeprefix('>=')}.0"
    takes = {}
    for name, version in pinned(ROOT / "constraints.txt").items():
        with contextlib.suppress(metadata.PackageNotFoundError):
            made = metadata.distribution(name)
            if made.version == version:
                takes[name] = SpecifierSet(str(made.metadata.json.get("requires_python", ""))).contains(first)
    assert len(takes) > 100
    assert [name for name, taken in takes.items() if not taken] == []


def test_the_lock_has_all_that_the_package_needs_and_nothing_of_development() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    needed = [
        *project["dependencies"],
        *(need for extra in ("vector", "metrics", "s3", "otel") for need in extras[extra]),
    ]
    names = {re.split(r"[<>=\[]", need)[0].lower() for need in needed} - {"torch", "nvidia-ml-py"}
    found = set(pinned(ROOT / "docker/locks/runtime.txt"))
    assert names <= found
    assert not found & {"pytest", "mypy", "hypothesis", "tensorboard", "matplotlib", "torch", "pip"}


def test_torch_of_both_locks_is_one_version_and_one_has_cuda() -> None:
    cuda = pinned(ROOT / "docker/locks/torch-cuda.txt")
    assert pinned(ROOT / "docker/locks/torch-cpu.txt") == {"torch": f"{cuda['torch']}+cpu"}
    assert any(name.startswith("nvidia-cudnn") for name in cuda)


@pytest.mark.parametrize("asked", ["cuda", "cpu", "base"])
def test_a_build_ends_where_another_torch_was_installed_than_asked_for(asked: str) -> None:
    import torch

    done = subprocess.run(
        [sys.executable, ROOT / "docker/check_torch.py", asked], check=False, capture_output=True, text=True
    )
    here = "cuda" if torch.version.cuda else "cpu"
    assert (done.returncode == 0) == (asked in {here, "base"})
    assert f"TORCH={asked}" in done.stdout + done.stderr
    assert torch.__version__ in done.stdout + done.stderr


def test_the_dockerfile_takes_files_that_are_there_and_ends_with_the_image_for_maps() -> None:
    text = (ROOT / "Dockerfile").read_text()
    stages = re.findall(r"^FROM .* AS (\w+)$", text, re.MULTILINE)
    assert stages == ["dependencies", "package", "runtime", "train", "dev"]
    assert text.rstrip().endswith("FROM runtime")
    for line in re.findall(r"^COPY (?!--from)(.*)$", text, re.MULTILINE):
        assert all((ROOT / source).exists() for source in line.split()[:-1]), line
