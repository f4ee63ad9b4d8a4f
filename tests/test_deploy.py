"""What people deploy with: manifests, image and dashboard fit the tools that read them, and us."""

import fnmatch
import json
import re
import shlex
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import promql_parser
import pytest
import tyro
import yaml
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard

import gazecore
from cluster.telemetry import FIGURES, exported
from jobs.score import ScoreOptions

ROOT = Path(__file__).resolve().parents[1]
DEPLOY = ROOT / "deploy"
DOCKERFILE = (DEPLOY / "Dockerfile").read_text()
RAY_CLUSTER = yaml.safe_load((ROOT / "ray_cluster.yaml").read_text())
ACCOUNT, RAY_JOB = yaml.safe_load_all((DEPLOY / "rayjob.yaml").read_text())
CLUSTER = RAY_JOB["spec"]["rayClusterSpec"]
HEAD, WORKERS = CLUSTER["headGroupSpec"], CLUSTER["workerGroupSpecs"][0]
PINNED = dict(
    line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line
)

TEXT, NUMBER, SWITCH = {"type": "string"}, {"type": "integer", "minimum": 0}, {"type": "boolean"}
TEXTS = {"type": "object", "additionalProperties": TEXT}
ANY = {"type": "object"}


def record(required: str, **fields: Any) -> dict[str, Any]:
    """The schema of an object with these fields and no others."""
    return {
        "type": "object",
        "properties": fields,
        "required": required.split(),
        "additionalProperties": False,
    }


# What ray.io/v1 adds to Kubernetes' own types, as far as it may be of use here: names and types as
# KubeRay's API reference has them (1.5). The templates of pods are checked by Kubernetes' schema.
RAY_JOB_SCHEMA = record(
    "apiVersion kind metadata spec",
    apiVersion={"const": "ray.io/v1"},
    kind={"const": "RayJob"},
    metadata=ANY,
    spec=record(
        "entrypoint rayClusterSpec",
        entrypoint=TEXT,
        activeDeadlineSeconds=NUMBER,
        backoffLimit=NUMBER,
        shutdownAfterJobFinishes=SWITCH,
        ttlSecondsAfterFinished=NUMBER,
        runtimeEnvYAML=TEXT,
        metadata=TEXTS,
        suspend=SWITCH,
        submissionMode={"enum": ["K8sJobMode", "HTTPMode", "InteractiveMode", "SidecarMode"]},
        submitterConfig=record("", backoffLimit=NUMBER),
        submitterPodTemplate=ANY,
        rayClusterSpec=record(
            "headGroupSpec",
            rayVersion=TEXT,
            authOptions=record("", mode={"enum": ["disabled", "token"]}),
            enableInTreeAutoscaling=SWITCH,
            autoscalerOptions=record(
                "",
                version={"enum": ["v1", "v2"]},
                idleTimeoutSeconds=NUMBER,
                upscalingMode={"enum": ["Default", "Aggressive", "Conservative"]},
                resources=ANY,
                securityContext=ANY,
                env={"type": "array"},
            ),
            headGroupSpec=record(
                "template",
                rayStartParams=TEXTS,
                serviceType=TEXT,
                enableIngress=SWITCH,
                template=ANY,
            ),
            workerGroupSpecs={
                "type": "array",
                "items": record(
                    "groupName minReplicas maxReplicas template",
                    groupName=TEXT,
                    replicas=NUMBER,
                    minReplicas=NUMBER,
                    maxReplicas=NUMBER,
                    numOfHosts=NUMBER,
                    idleTimeoutSeconds=NUMBER,
                    rayStartParams=TEXTS,
                    template=ANY,
                ),
            },
        ),
    ),
)


def check_ray_job(job: dict[str, Any]) -> None:
    """Raise for what KubeRay or Kubernetes would not take."""
    jsonschema.validate(job, RAY_JOB_SCHEMA)
    cluster = job["spec"]["rayClusterSpec"]
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        template = group["template"]
        metadata = {"name": "pod", **template.get("metadata", {})}
        pod = {"apiVersion": "v1", "kind": "Pod", **template, "metadata": metadata}
        context = cluster["autoscalerOptions"]["securityContext"]
        container = {"name": "autoscaler", "securityContext": context}
        pod["spec"] = {**pod["spec"], "containers": [*pod["spec"]["containers"], container]}
        kubernetes_validate.validate(pod, "1.37", strict=True)


def test_the_ray_job_fits_the_schemas() -> None:
    check_ray_job(RAY_JOB)
    kubernetes_validate.validate(ACCOUNT, "1.37", strict=True)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("spec.backOffLimit", 3),
        ("spec.rayClusterSpec.rayVersion", 2.6),
        ("spec.rayClusterSpec.workerGroupSpecs.0.maxReplica", 3),
        ("spec.rayClusterSpec.workerGroupSpecs.0.rayStartParams.num-cpus", 0),
        ("spec.rayClusterSpec.workerGroupSpecs.0.template.spec.toleration", []),
        ("spec.rayClusterSpec.headGroupSpec.template.spec.containers.0.env", {"A": "b"}),
        ("spec.rayClusterSpec.autoscalerOptions.securityContext.privilege", False),
    ],
)
def test_the_schemas_refuse_mistakes(path: str, value: object) -> None:
    job = deepcopy(RAY_JOB)
    *way, last = [int(step) if step.isdigit() else step for step in path.split(".")]
    place = job
    for step in way:
        place = place[step]
    place[last] = value
    with pytest.raises((jsonschema.ValidationError, kubernetes_validate.ValidationError)):
        check_ray_job(job)


def containers() -> Iterator[dict[str, Any]]:
    for group in (HEAD, WORKERS):
        yield from group["template"]["spec"]["containers"]


def test_ray_and_python_are_the_same_everywhere() -> None:
    version = re.search(r"^FROM python:(3\.\d+)\.\d+-slim-\w+$", DOCKERFILE, flags=re.MULTILINE)
    assert version is not None
    python = "py" + version[1].replace(".", "")
    assert CLUSTER["rayVersion"] == PINNED["ray"]
    assert RAY_CLUSTER["docker"]["image"] == f"rayproject/ray:{PINNED['ray']}-{python}-gpu"
    image = re.search(r"--tag (\S+)", DOCKERFILE)
    assert image is not None
    assert {container["image"] for container in containers()} == {image[1]}
    assert image[1].endswith(f":{gazecore.__version__}")


def test_pods_get_storage_by_their_role_and_rays_token_from_a_secret() -> None:
    assert ACCOUNT["metadata"]["annotations"]["eks.amazonaws.com/role-arn"]
    assert CLUSTER["authOptions"] == {"mode": "token"}
    for group in (HEAD, WORKERS):
        assert group["template"]["spec"]["serviceAccountName"] == ACCOUNT["metadata"]["name"]
    names = {variable["name"] for c in containers() for variable in c.get("env", [])}
    assert names == {"RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S"}
    text = " ".join(path.read_text() for path in [*DEPLOY.iterdir(), ROOT / "ray_cluster.yaml"])
    assert not re.search(r"(?i)secret_?access|access_?key|password|AKIA[0-9A-Z]{12}", text)


def test_pods_run_confined_and_without_root() -> None:
    for group in (HEAD, WORKERS):
        context = group["template"]["spec"]["securityContext"]
        assert context["runAsNonRoot"]
        assert DOCKERFILE.rindex(f"USER {context['runAsUser']}:") > DOCKERFILE.rindex("RUN ")
    for holder in (*containers(), CLUSTER["autoscalerOptions"]):
        context = holder["securityContext"]
        assert context == {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}


def test_workers_come_and_go_and_the_head_stays() -> None:
    assert CLUSTER["enableInTreeAutoscaling"]
    assert (WORKERS["replicas"], WORKERS["minReplicas"]) == (0, 0)
    assert HEAD["rayStartParams"]["num-cpus"] == "0"
    assert "nvidia.com/gpu" in WORKERS["template"]["spec"]["containers"][0]["resources"]["limits"]
    spec = WORKERS["template"]["spec"]
    drain = float(spec["containers"][0]["env"][0]["value"])
    assert drain < spec["terminationGracePeriodSeconds"] < 120  # AWS's notice
    assert RAY_JOB["spec"]["shutdownAfterJobFinishes"]
    assert RAY_JOB["spec"]["backoffLimit"] > 0  # a lost head is the end of a cluster, not of a run


def test_the_manifests_commands_parse_and_ask_for_what_there_is() -> None:
    program, command, *arguments = shlex.split(RAY_JOB["spec"]["entrypoint"])
    assert (program, command) == ("gazecore", "score")
    cluster = tyro.cli(ScoreOptions, args=arguments).cluster
    assert cluster.bounds()[1] == WORKERS["maxReplicas"]
    assert cluster.gpus_per_actor == 1
    comments = re.sub(r"\\\n# *", "", (ROOT / "ray_cluster.yaml").read_text())
    line = re.search(r"python -m jobs\.score (.*)", comments)
    assert line is not None
    cluster = tyro.cli(ScoreOptions, args=shlex.split(line[1])).cluster
    assert cluster.bounds()[1] == RAY_CLUSTER["available_node_types"]["gpu_worker"]["max_workers"]


def test_the_aws_cluster_asks_for_a_token_listens_inside_and_heeds_the_notice() -> None:
    head, workers = (RAY_CLUSTER[f"{kind}_start_ray_commands"] for kind in ("head", "worker"))
    starts = [command for command in (*head, *workers) if "ray start" in command]
    assert len(starts) == 2
    assert all("RAY_AUTH_MODE=token ray start" in command for command in starts)
    assert "--dashboard-host=127.0.0.1" in starts[0]
    # `ray drain-node`, which the notice calls, needs the token as well.
    assert re.match(r"RAY_AUTH_MODE=token nohup python -m cluster\.notice .*&$", workers[-1])
    assert workers.index(starts[1]) < len(workers) - 1
    assert "security_group" not in RAY_CLUSTER["provider"]  # Ray's own: SSH from outside, no more


def test_the_dockerfile_passes_hadolint() -> None:
    program = Path(sys.executable).parent / "hadolint"
    file = str(DEPLOY / "Dockerfile")
    result = subprocess.run([program, file], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout) == (0, "")
    bad = subprocess.run(
        [program, "-"], input="FROM python\nRUN pip install ray", capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert bad.returncode != 0


def test_the_image_holds_the_whole_project_and_nothing_else(tmp_path: Path) -> None:
    copied = [
        source
        for line in re.findall(r"^COPY (.*)$", DOCKERFILE, flags=re.MULTILINE)
        for source in line.split()[:-1]
    ]
    ignore = (ROOT / ".dockerignore").read_text().splitlines()
    allowed = [line[1:] for line in ignore if line.startswith("!")]
    assert "*" in ignore
    assert sorted(allowed) == sorted(copied)
    for source in copied:
        (tmp_path / source).symlink_to(ROOT / source)
    command = [
        sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-index",
        "--no-cache-dir", "--no-build-isolation", "--wheel-dir", tmp_path / "wheels", tmp_path,
    ]  # fmt: skip
    subprocess.run(command, check=True, capture_output=True)
    (wheel,) = (tmp_path / "wheels").iterdir()
    names = set(zipfile.ZipFile(wheel).namelist())
    for pattern in ("gazecore/**/*.py", "gazecore/model/*.safetensors", "gazecore/view/*.html",
                    "cluster/*.py", "jobs/*.py"):  # fmt: skip
        expected = {str(path.relative_to(ROOT)) for path in ROOT.glob(pattern)}
        assert expected
        assert expected <= names
    assert not fnmatch.filter(names, "tests/*")


def test_the_image_installs_the_packages_that_the_project_names(tmp_path: Path) -> None:
    command = re.search(r'^RUN (python -c ".*") \\$', DOCKERFILE, flags=re.MULTILINE)
    assert command is not None
    (tmp_path / "python").symlink_to(sys.executable)
    listed = subprocess.run(
        command[1], shell=True, env={"PATH": str(tmp_path)}, cwd=ROOT, capture_output=True,
        text=True, check=True,
    ).stdout.splitlines()  # fmt: skip
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert listed == project["dependencies"]
    pinned = {name.lower() for name in PINNED}
    assert {re.sub(r"[^a-z0-9-].*", "", line) for line in listed} <= pinned
    assert "--constraint constraints.txt --requirement requirements.txt" in DOCKERFILE


def unknown_fields(ours: Any, theirs: Any, path: str = "") -> Iterator[str]:
    """What of a JSON document did not survive being read by its schema's types."""
    if isinstance(ours, dict):
        for key, value in ours.items():
            if isinstance(theirs, dict) and key in theirs:
                yield from unknown_fields(value, theirs[key], f"{path}.{key}")
            else:
                yield f"{path}.{key}"
    elif isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        for index, (one, other) in enumerate(zip(ours, theirs, strict=True)):
            yield from unknown_fields(one, other, f"{path}[{index}]")
    elif ours != theirs:
        yield path


def test_the_dashboard_fits_grafanas_schema() -> None:
    register_default_plugins()
    dashboard = json.loads((DEPLOY / "grafana.json").read_text())

    def strangers() -> list[str]:
        read = Dashboard.from_json(deepcopy(dashboard))
        return list(unknown_fields(dashboard, json.loads(JSONEncoder().encode(read))))

    assert strangers() == []
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])
    dashboard["panels"][0]["gridPosition"] = {}
    assert strangers() == [".panels[0].gridPosition"]


def test_the_dashboard_asks_for_exactly_the_figures_that_there_are() -> None:
    dashboard = json.loads((DEPLOY / "grafana.json").read_text())
    variables = {variable["name"]: variable for variable in dashboard["templating"]["list"]}
    assert variables["datasource"]["type"] == "datasource"
    queries = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    labels = {exported(name): {"run", *FIGURES[name][1]} for name in FIGURES}
    found: set[str] = set()
    for query in queries:
        text = query.replace("$__rate_interval", "5m").replace("$__range", "1h")
        promql_parser.parse(text)
        names = set(re.findall(r"\bray_\w+", text))
        assert names
        for name in names:
            assert text.count(name) == text.count(f'{name}{{run=~"$run"}}'), query
        for grouped in re.findall(r"by \((\w+)\)", text):
            assert all(grouped in labels[name] for name in names), query
        counts = re.findall(r"(rate|increase|max_over_time)\((\w+)", text)
        totals = {name for name in names if name.endswith("_total")}
        assert {name for _, name in counts} == totals, query  # a counter goes with its actor
        found |= names
    assert found == set(labels)
    with pytest.raises(ValueError, match="unclosed"):
        promql_parser.parse("sum(rate(a[5m])")


def test_the_documentation_has_every_figure_and_every_line_of_the_logs() -> None:
    text = (ROOT / "docs" / "operations.md").read_text()
    for name, (_, labels, _) in FIGURES.items():
        line = next(line for line in text.splitlines() if f"| `{exported(name)}`" in line)
        assert all(f"`{label}`" in line for label in labels), name
    code = " ".join(path.read_text() for path in (ROOT / "cluster").glob("*.py"))
    events = set(re.findall(r'\.(?:info|warning|error)\(\s*"([a-z_]+)"', code))
    assert {"shard_done", "progress", "waiting_for_room"} <= events
    for event in events:
        assert f"`{event}`" in text, event
