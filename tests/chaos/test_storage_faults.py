"""A run meets each fault of its storage, one by one: what then becomes of it.

What the faults of a whole cluster together do is `tests.chaos.torture`'s.
"""

import contextlib
import io
import re
import subprocess
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import boto3
import botocore.retryhandler
import pyarrow as pa
import pytest
import stamina

import cluster.actors
import cluster.connection
import gazecore.images.fetch
import gazecore.shards.blame
import jobs.score
from cluster.actors import ShardActor
from cluster.connection import connected
from gazecore.errors import RunFailed, StorageUnavailable
from gazecore.images.formats import Limits
from gazecore.images.listing import LISTED, list_images
from gazecore.model.deepgaze import DeepGaze
from gazecore.results.reader import Results
from gazecore.results.run import Run, RunSettings, begin_run, open_run
from gazecore.results.verify import problems
from gazecore.results.write import commit_shard
from gazecore.shards.plan import shards
from gazecore.shards.planning import update_plan
from gazecore.shards.stage import ReadingConfig, StageConfig
from gazecore.storage import Location
from tests.chaos.proxy import FaultyProxy
from tests.chaos.torture import s3_server
from tests.conftest import make_photo
from tests.jobs.conftest import run_here, words
from tests.objects import AZURE, GCS, Kind, ObjectServer, forget_keys, serving
from tests.scoring import Scorer

PHOTOS = 9
PAGE = 4
"""Keys on a page of a listing."""


class Storage:
    """A bucket with photographs behind the proxy, and a way past the proxy."""

    def __init__(self, server: dict[str, str], proxy: FaultyProxy, bucket: str) -> None:
        self.proxy, self.bucket = proxy, bucket
        self.source = f"s3://{bucket}/set"
        self._client = boto3.client("s3", endpoint_url=server["AWS_ENDPOINT_URL"])
        self._client.create_bucket(Bucket=bucket)
        for seed in range(PHOTOS):
            self.put(f"set/{seed}.jpg", photo(seed))

    def put(self, key: str, data: bytes) -> None:
        self._client.put_object(Bucket=self.bucket, Key=key, Body=data)

    def delete(self, key: str) -> None:
        self._client.delete_object(Bucket=self.bucket, Key=key)

    def plan(self, name: str) -> Run:
        """Plan a run of this bucket, or plan it again."""
        return plan(self.source, f"s3://{self.bucket}/runs/{name}")

    def files(self, name: str) -> dict[str, bytes]:
        """Every object of a run in this bucket."""
        prefix = f"runs/{name}/"
        pages = self._client.get_paginator("list_objects_v2").paginate(
            Bucket=self.bucket, Prefix=prefix
        )
        keys = [item["Key"] for page in pages for item in page.get("Contents", ())]
        return {
            key.removeprefix(prefix): self._client.get_object(Bucket=self.bucket, Key=key)[
                "Body"
            ].read()
            for key in keys
        }


class Elsewhere(Storage):
    """Photographs at Google's or Azure's, of a kind, behind a proxy; the runs stay in the bucket.

    They are not listed, which would be gcsfs's and adlfs's part: the plan is made of what is there.
    """

    def __init__(
        self, server: dict[str, str], place: tuple[ObjectServer, FaultyProxy], bucket: str
    ):
        self._images = place[0].objects
        super().__init__(server, place[1], bucket)
        self.source = f"{place[0].kind.scheme}://{bucket}/set"

    def put(self, key: str, data: bytes) -> None:
        self._images[f"{self.bucket}/{key}"] = data

    def delete(self, key: str) -> None:
        del self._images[f"{self.bucket}/{key}"]

    def plan(self, name: str) -> Run:
        prefix = f"{self.bucket}/set/"
        found = sorted(key for key in self._images if key.startswith(prefix))
        rows = [
            {
                "image_id": key.removeprefix(prefix),
                "uri": f"{self.source}/{key.removeprefix(prefix)}",
                "size": len(self._images[key]),
            }
            for key in found
        ]
        out = Location(f"s3://{self.bucket}/runs/{name}")
        run = begin_run(out, RunSettings(self.source, "tiny", "1024", 3, 4, Limits()))
        update_plan(run, iter([pa.RecordBatch.from_pylist(rows, schema=LISTED)]))
        return run


def photo(seed: int, width: int = 96, height: int = 64) -> bytes:
    buffer = io.BytesIO()
    make_photo(seed, width, height).save(buffer, "jpeg")
    return buffer.getvalue()


@pytest.fixture(scope="module")
def place() -> Iterator[tuple[dict[str, str], FaultyProxy]]:
    """The server and the proxy before it, which this process and its children are pointed at."""
    with pytest.MonkeyPatch.context() as patch, s3_server() as server:
        patch.setenv("MOTO_S3_DEFAULT_MAX_KEYS", str(PAGE))
        with FaultyProxy(server["AWS_ENDPOINT_URL"]) as proxy:
            for name, value in {**server, "AWS_ENDPOINT_URL": proxy.url}.items():
                patch.setenv(name, value)
            yield server, proxy


@contextlib.contextmanager
def elsewhere(kind: Kind, folder: Path) -> Iterator[tuple[ObjectServer, FaultyProxy]]:
    """A server of a kind and the proxy before it, which this process is pointed at."""
    with (
        pytest.MonkeyPatch.context() as patch,
        serving(kind) as server,
        FaultyProxy(server.url) as proxy,
    ):
        proxy.words = kind.words
        for name, value in server.environment(folder, proxy.url).items():
            patch.setenv(name, value)
        forget_keys()
        yield server, proxy


@pytest.fixture(scope="module")
def google(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[ObjectServer, FaultyProxy]]:
    with elsewhere(GCS, tmp_path_factory.mktemp("google")) as place:
        yield place


@pytest.fixture(scope="module")
def azure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[ObjectServer, FaultyProxy]]:
    with elsewhere(AZURE, tmp_path_factory.mktemp("azure")) as place:
        yield place


@pytest.fixture
def storage(
    place: tuple[dict[str, str], FaultyProxy], request: pytest.FixtureRequest
) -> Iterator[Storage]:
    """A bucket of the test's own."""
    yield from lent(Storage(*place, own_bucket(request)))


@pytest.fixture(params=["s3", "google", "azure"])
def each_storage(
    place: tuple[dict[str, str], FaultyProxy], request: pytest.FixtureRequest
) -> Iterator[Storage]:
    """A bucket of the test's own, on each storage that obstore reads."""
    bucket = own_bucket(request)
    if request.param == "s3":
        yield from lent(Storage(*place, bucket))
    else:
        yield from lent(Elsewhere(place[0], request.getfixturevalue(request.param), bucket))


def own_bucket(request: pytest.FixtureRequest) -> str:
    name = re.sub("[^a-z0-9]+", "-", request.node.name.lower())
    return f"{name[-50:].strip('-')}-b"


@pytest.fixture(scope="module")
def shared_bucket(place: tuple[dict[str, str], FaultyProxy], tiny: DeepGaze) -> Storage:
    storage = Storage(*place, "still")
    work_off(storage.plan("undisturbed"), tiny)
    return storage


@pytest.fixture(scope="module", params=["s3", "google", "azure"])
def each_shared_bucket(
    place: tuple[dict[str, str], FaultyProxy], tiny: DeepGaze, request: pytest.FixtureRequest
) -> Storage:
    if request.param == "s3":
        still: Storage = request.getfixturevalue("shared_bucket")
        return still
    found = request.getfixturevalue(request.param)
    storage = Elsewhere(place[0], found, f"still-{request.param}")
    work_off(storage.plan("undisturbed"), tiny)
    return storage


@pytest.fixture
def each_still(each_shared_bucket: Storage) -> Iterator[Storage]:
    """The same as `still`, on each storage that obstore reads."""
    yield from lent(each_shared_bucket)


@pytest.fixture
def still(shared_bucket: Storage) -> Iterator[Storage]:
    """A bucket whose images stay, and a run over them that nothing happened to."""
    yield from lent(shared_bucket)


def lent(storage: Storage) -> Iterator[Storage]:
    storage.proxy.faults.clear()
    yield storage
    storage.proxy.force, storage.proxy.before = lambda method, path: None, lambda method, path: None


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What is tried again is tried again without a wait."""
    monkeypatch.setattr(botocore.retryhandler, "delay_exponential", lambda *args, **named: 0)
    with stamina.set_testing(True, attempts=10, cap=True):
        yield


def plan(source: str, out: str, shard_size: int = 3) -> Run:
    settings = RunSettings(source, "tiny", "1024", shard_size, 4, Limits())
    run = begin_run(Location(out), settings)
    update_plan(run, list_images(source))
    return run


def work_off(run: Run, model: DeepGaze, only: int | None = None) -> None:
    """What an actor does with the shards that are not done, or one of them, in this process."""
    scorer = Scorer(model, ReadingConfig(fetchers=2))
    done = run.shards_done()
    try:
        for shard in shards(run, lambda n: n not in done and only in (None, n)):
            commit_shard(run, shard.number, *scorer.score(shard.images))
    finally:
        scorer.close()


def results(files: dict[str, bytes]) -> dict[str, bytes]:
    return {name: data for name, data in files.items() if name.startswith(("scores", "densities"))}


def errors(run: Run) -> dict[str, str | None]:
    return {row["image_id"]: row["error"] for row in Results(run).scores.to_pylist()}


def at_first(
    fault: str, times: int, wanted: Callable[[str, str], bool]
) -> Callable[[str, str], str | None]:
    """Each request of some kind meets a fault the first few times that it comes."""
    came: Counter[tuple[str, str]] = Counter()

    def force(method: str, path: str) -> str | None:
        came[method, path] += wanted(method, path)
        return fault if 0 < came[method, path] <= times and wanted(method, path) else None

    return force


def is_image(method: str, path: str) -> bool:
    return method == "GET" and "/set/" in path


def is_any(method: str, path: str) -> bool:
    return is_image(method, path) or "list-type=" in path or method == "PUT" or "/plan/" in path


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize(
    ("fault", "times", "meets"),
    [
        ("slow_down", 2, is_any),
        ("reset", 2, is_any),
        ("truncated", 2, is_any),
        ("shortened", 2, is_any),
        ("latency", 1, lambda method, path: is_image(method, path) and "/1.jpg" in path),
        ("expired", 2, is_image),
    ],
)
def test_faults_that_pass_leave_no_trace(
    each_still: Storage, tiny: DeepGaze, fault: str, times: int, meets: Callable[[str, str], bool]
) -> None:
    each_still.proxy.force = at_first(fault, times, meets)
    run = each_still.plan(fault)
    work_off(run, tiny)
    assert each_still.proxy.faults[fault] >= (2 * PHOTOS if times == 2 else 1)
    assert each_still.files(fault) == each_still.files("undisturbed")
    assert set(errors(run).values()) == {None}


@pytest.mark.parametrize("fault", ["slow_down", "reset", "truncated", "shortened", "expired"])
def test_faults_that_stay_fail_the_shard_and_no_image(
    each_still: Storage, tiny: DeepGaze, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gazecore.images.fetch, "RETRY_SECONDS", 0.5)
    run = each_still.plan(f"{fault}-stays")
    each_still.proxy.force = lambda method, path: fault if "/4.jpg" in path else None
    with pytest.raises(StorageUnavailable, match=rf"{each_still.source}/4\.jpg: \w+: .") as caught:
        work_off(run, tiny, only=1)
    assert len(str(caught.value).splitlines()) == 1
    assert results(each_still.files(f"{fault}-stays")) == {}
    each_still.proxy.force = lambda method, path: None
    work_off(run, tiny, only=1)
    found, truth = each_still.files(f"{fault}-stays"), each_still.files("undisturbed")
    assert found.items() <= truth.items()
    assert list(results(found)) == [name for name in results(truth) if "000001" in name]


def test_the_first_unanswered_image_ends_its_shards_try(
    each_still: Storage, tiny: DeepGaze, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gazecore.images.fetch, "RETRY_SECONDS", 1)
    run = each_still.plan("ends-early")
    asked: Counter[str] = Counter()

    def force(method: str, path: str) -> str | None:
        asked[path] += is_image(method, path)
        return "slow_down" if is_image(method, path) else None

    each_still.proxy.force = force
    images = next(shards(run)).images
    scorer = Scorer(tiny, ReadingConfig(fetchers=1))
    with pytest.raises(StorageUnavailable, match=r"/0\.jpg"):
        scorer.score(images)
    scorer.close()
    # The one reader had begun with the next image at most, and let go of it.
    assert len([path for path in asked if "/2.jpg" in path]) == 0


def test_a_listing_that_changes_between_its_pages(storage: Storage, tiny: DeepGaze) -> None:
    pages = []

    def change(method: str, path: str) -> None:
        if "continuation-token=" in path and "set" in path:
            pages.append(path)
            if len(pages) == 1:  # 0 to 3 are listed
                storage.put("set/00.jpg", photo(50))
                storage.put("set/55.jpg", photo(55))
                storage.delete("set/1.jpg")
                storage.delete("set/7.jpg")

    storage.proxy.before = change
    run = storage.plan("run")
    assert len(pages) == 2  # and no page is asked for twice
    planned = [i for shard in shards(run) for i in shard.images["image_id"].to_pylist()]
    assert planned == [f"{name}.jpg" for name in (0, 1, 2, 3, 4, 5, 55, 6, 8)]
    work_off(run, tiny)
    gone = {"1.jpg": "not_found"}
    assert errors(run) == dict.fromkeys(planned) | gone
    # The next plan has what this one could not see, and each image once.
    run = storage.plan("run")
    work_off(run, tiny)
    assert errors(run) == dict.fromkeys([*planned, "00.jpg"]) | gone
    assert list(problems(run)) == []


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize(("fault", "reason"), [("slow_down", "reduce your"), ("reset", "")])
def test_a_listing_that_breaks_off_plans_nothing(
    storage: Storage,
    tiny_file: str,
    tmp_path: Path,
    fault: str,
    reason: str,
) -> None:
    storage.proxy.force = lambda method, path: fault if "continuation-token=" in path else None
    out = f"s3://{storage.bucket}/runs/run"
    ended = run_here(tmp_path, "score", storage.source, "--out", out, "--model", tiny_file)
    assert ended.returncode == 1
    assert len(ended.stderr.splitlines()) == 1
    assert f"cannot list {storage.source}: " in ended.stderr
    assert reason in ended.stderr
    assert storage.files("run") == {}
    storage.proxy.force = lambda method, path: None
    assert sum(shard.images.num_rows for shard in shards(storage.plan("run"))) == PHOTOS


@pytest.mark.usefixtures("at_once")
def test_an_input_that_does_not_answer_is_not_called_empty(storage: Storage) -> None:
    storage.put("lists/all.txt", b"../set/1.jpg")
    storage.proxy.force = lambda method, path: "slow_down" if method == "HEAD" else None
    with pytest.raises(RunFailed, match=r"cannot list s3://.*all\.txt"):
        list(list_images(f"s3://{storage.bucket}/lists/all.txt"))
    # Of folders that a glob visits, none is left out.
    storage.put("set/more/9.jpg", photo(9))
    storage.proxy.force = lambda method, path: "slow_down" if "set%2Fmore" in path else None
    found = f"s3://{storage.bucket}/set/*/*.jpg"
    with pytest.raises(RunFailed, match="cannot list"):
        list(list_images(found))
    storage.proxy.force = lambda method, path: None
    assert [b["image_id"].to_pylist() for b in list_images(found)] == [["more/9.jpg"]]


def test_an_object_that_is_deleted_between_plan_and_read(
    each_storage: Storage, tiny: DeepGaze
) -> None:
    run = each_storage.plan("run")
    each_storage.delete("set/4.jpg")
    work_off(run, tiny, only=1)
    assert errors(run) == {"3.jpg": None, "4.jpg": "not_found", "5.jpg": None}


@pytest.mark.parametrize("size", [(48, 32), (192, 128)], ids=["smaller", "larger"])
@pytest.mark.parametrize("when", ["before it is read", "while it is read"])
def test_an_object_that_is_overwritten_between_plan_and_read_is_scored_as_it_is(
    each_storage: Storage, tiny: DeepGaze, size: tuple[int, int], when: str
) -> None:
    old, new = photo(4), photo(40, *size)
    assert (len(new) < len(old)) == (size == (48, 32))
    run = each_storage.plan("run")
    if when == "while it is read":
        # The first answer is cut; the second is of the new object.
        each_storage.proxy.force = at_first("truncated", 1, lambda method, path: "/4.jpg" in path)
        came: list[str] = []

        def overwrite(method: str, path: str) -> None:
            if "/4.jpg" in path:
                came.append(path)
                if len(came) == 2:
                    each_storage.put("set/4.jpg", new)

        each_storage.proxy.before = overwrite
    else:
        each_storage.put("set/4.jpg", new)
    work_off(run, tiny, only=1)
    work_off(each_storage.plan("planned after"), tiny, only=1)
    assert results(each_storage.files("run")) == results(each_storage.files("planned after"))
    rows = {row["image_id"]: row for row in Results(run).scores.to_pylist()}
    assert (rows["4.jpg"]["width"], rows["4.jpg"]["height"]) == size


def test_an_object_that_was_empty_when_it_was_planned(
    each_storage: Storage, tiny: DeepGaze
) -> None:
    each_storage.put("set/4.jpg", b"")
    each_storage.put("set/5.jpg", b"")
    run = each_storage.plan("run")
    each_storage.put("set/4.jpg", photo(4))
    work_off(run, tiny, only=1)
    assert errors(run) == {"3.jpg": None, "4.jpg": None, "5.jpg": "decode_error"}


@contextlib.contextmanager
def small_disk(folder: Path, kilobytes: int) -> Iterator[Callable[[int], None]]:
    """A file system of its own at `folder`; yields what gives it another size."""
    folder.mkdir()

    def mount(options: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)],
            capture_output=True, text=True, check=False,
        )  # fmt: skip

    ended = mount(f"size={kilobytes}k")
    if ended.returncode:
        pytest.skip(f"a tmpfs cannot be mounted here: {ended.stderr.strip()}")
    try:
        yield lambda size: mount(f"remount,size={size}k").check_returncode()
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def local_files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def fill(folder: Path) -> Path:
    """Leave no room where `folder` is; returns the file that takes it."""
    filler = folder / "filler"
    with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))
    return filler


def test_a_disk_that_is_full_when_a_run_is_planned(
    photos: Path, tiny_file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk, temporary = tmp_path / "disk", tmp_path / "temporary"
    out = disk / "run"
    arguments = ("score", str(photos), "--out", str(out), "--model", tiny_file)

    def refused(file: str) -> None:
        ended = run_here(tmp_path, *arguments)
        assert ended.returncode == 1
        assert len(ended.stderr.splitlines()) == 1
        assert "No space left on device" in ended.stderr
        assert file in ended.stderr

    with small_disk(disk, kilobytes=64), small_disk(temporary, kilobytes=64):
        filler = fill(disk)
        refused(f"'{out}/run.json'")
        assert local_files(out) == {}
        filler.unlink()
        fill(temporary)
        monkeypatch.setattr(tempfile, "tempdir", str(temporary))
        refused(f"no room for temporary files in {temporary}/")
        assert [path.name for path in temporary.iterdir()] == ["filler"]
        monkeypatch.setattr(tempfile, "tempdir", None)
        filler = fill(disk)
        run = open_run(Location(str(out)))
        with pytest.raises(OSError, match=rf"No space left.*'{out}/plan/part-00000\.parquet'"):
            update_plan(run, list_images(str(photos)))
        assert list(local_files(out)) == ["run.json"]
        filler.unlink()
        assert update_plan(run, list_images(str(photos))).images == 10


class HastyActor(ShardActor):
    """An actor that waits half a second for the storage, not a minute."""

    def __init__(self, config: StageConfig, threads: int, gpu: bool) -> None:
        gazecore.images.fetch.RETRY_SECONDS = 0.5  # type: ignore[assignment]
        super().__init__(config, threads, gpu)


@pytest.fixture
def command(
    ray_here: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """`gazecore score ...` in this process and on the Ray of this module: code, stdout, stderr."""
    monkeypatch.setattr(cluster.actors, "ShardActor", HastyActor)
    monkeypatch.setattr(
        cluster.connection, "connected", lambda address: contextlib.nullcontext(False)
    )

    def run(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            jobs.score.main(arguments)
        assert isinstance(ended.value.code, int)
        said = capsys.readouterr()
        assert "Traceback" not in said.out + said.err
        return ended.value.code, words(said.out), said.err

    return run


@pytest.fixture(scope="module")
def ray_here(place: tuple[dict[str, str], FaultyProxy]) -> Iterator[None]:
    with connected("local"):
        yield


def test_the_command_names_what_it_could_not_do_and_the_next_one_does_it(
    still: Storage, command: Callable[..., tuple[int, str, str]], tiny_file: str
) -> None:
    truth = results(still.files("undisturbed"))
    arguments = (still.source, "--out", f"s3://{still.bucket}/runs/command", "--model", tiny_file,
                 "--shard-size", "3", "--gpus-per-actor", "0")  # fmt: skip

    # One object is broken for good, and the keys do not reach another shard.
    def force(method: str, path: str) -> str | None:
        if "/4.jpg" in path:
            return "slow_down"
        return "expired" if re.search(r"/set/[678]\.jpg", path) else None

    still.proxy.force = force
    code, out, _ = command(*arguments)
    assert code == 1
    assert "scored 3 not done" in out
    assert f"shard 1: StorageUnavailable: {still.source}/4.jpg: OSError: " in out
    assert "reduce your request rate" in out
    assert f"shard 2: StorageUnavailable: {still.source}/6.jpg: PermissionError: " in out
    assert "token has expired" in out
    assert out.count("the same command tries it again") == 2
    assert results(still.files("command")) == {
        name: data for name, data in truth.items() if "000000" in name
    }

    # With valid keys; who asks for it gets the rest of the broken object's shard.
    still.proxy.force = lambda method, path: "slow_down" if "/4.jpg" in path else None
    code, out, _ = command(*arguments, "--fail-unanswered")
    assert code == 0
    assert "done before 3 scored 5 failed 1 storage_error" in out
    found = results(still.files("command"))
    assert {n for n in truth if found[n] != truth[n]} == {n for n in truth if "000001" in n}
    assert list(problems(open_run(Location(f"s3://{still.bucket}/runs/command")))) == []


def dead_links(still: Storage, folder: Path, dead: int, good: int) -> str:
    """A list of shards of two images: first some of a live and a dead link, or of two dead ones."""
    lines = ["uri,image_id"]
    for number in range(dead):
        lines += [f"{still.source}/4.jpg,dead-{number}", f"{still.source}/0.jpg,live-{number}"]
    for number in range(good):
        lines += [f"{still.source}/{i}.jpg,good-{number}-{i}" for i in (1, 2)]
    (folder / "list.csv").write_text("\n".join(lines) + "\n")
    return str(folder / "list.csv")


@pytest.mark.parametrize("flag", [(), ("--fail-unanswered",)], ids=["", "fail-unanswered"])
def test_shards_that_can_be_done_are_done_behind_any_number_with_dead_links(
    still: Storage,
    command: Callable[..., tuple[int, str, str]],
    tiny_file: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    flag: tuple[str, ...],
) -> None:
    monkeypatch.setattr(gazecore.shards.blame, "REST_SECONDS", 0.2)
    still.proxy.force = lambda method, path: "slow_down" if "/4.jpg" in path else None
    dead, good = gazecore.shards.blame.MAX_IN_A_ROW + 4, 8
    code, out, _ = command(
        dead_links(still, tmp_path, dead, good), "--out", str(tmp_path / "run"), "--allow", "s3",
        "--model", tiny_file, "--shard-size", "2", "--gpus-per-actor", "0", *flag,
    )  # fmt: skip
    if flag:
        assert code == 0
        assert f"scored {2 * good + dead} failed {dead} storage_error" in out
        assert list(problems(open_run(Location(str(tmp_path / "run"))))) == []
    else:
        assert code == 1
        assert f"scored {2 * good} not done shard" in out


def test_shards_that_can_be_done_are_done_behind_a_dead_host(
    still: Storage,
    command: Callable[..., tuple[int, str, str]],
    tiny_file: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Which answers for nothing: then the plan's other end is tried before the run is given up."""
    monkeypatch.setattr(gazecore.shards.blame, "REST_SECONDS", 0.2)
    still.proxy.force = lambda method, path: "slow_down" if re.search(r"/[04]\.jpg", path) else None
    code, out, _ = command(
        dead_links(still, tmp_path, gazecore.shards.blame.MAX_IN_A_ROW + 4, 8), "--out",
        str(tmp_path / "run"), "--allow", "s3", "--model", tiny_file, "--shard-size", "2",
        "--gpus-per-actor", "0",
    )  # fmt: skip
    assert code == 1
    assert "scored 16 not done shard" in out


def test_keys_that_are_refused_end_the_command_at_the_first_answer(
    still: Storage, command: Callable[..., tuple[int, str, str]], tiny_file: str, tmp_path: Path
) -> None:
    asked = Counter[str]()

    def force(method: str, path: str) -> str:
        asked[path] += 1
        return "unknown_keys"

    source = dead_links(still, tmp_path, 0, 30)
    still.proxy.force = force
    code, _, said = command(
        source, "--out", str(tmp_path / "run"), "--allow", "s3", "--model", tiny_file,
        "--shard-size", "2", "--gpus-per-actor", "0",
    )  # fmt: skip
    assert code == 2
    assert "refuses the keys" in said.splitlines()[-1]
    assert "The key id does not exist here" in said.splitlines()[-1]
    assert asked.total() < 12  # those that were under way


def test_a_disk_that_fills_up_while_a_run_writes(
    command: Callable[..., tuple[int, str, str]],
    photos: Path,
    tiny: DeepGaze,
    tiny_file: str,
    tmp_path: Path,
) -> None:
    undisturbed = str(tmp_path / "undisturbed")
    work_off(plan(str(photos), undisturbed, shard_size=1), tiny)
    truth = results(local_files(Path(undisturbed)))
    arguments = (str(photos), "--model", tiny_file, "--shard-size", "1", "--gpus-per-actor", "0")
    whole = sum(-(-len(data) // 4096) * 4 for data in truth.values())
    with small_disk(tmp_path / "disk", kilobytes=whole * 6 // 10) as resize:
        out = tmp_path / "disk" / "run"
        code, said, log = command(*arguments, "--out", str(out))
        assert code == 1
        named = re.findall(
            rf"shard \d+: OSError: \[Errno 28\] No space left on device: '{out}/\w+/shard", said
        )
        assert len(named) >= 2
        assert "shard_error" in log
        assert not [path for path in out.rglob("*") if path.suffix == ".tmp"]
        found = results(local_files(out))
        assert found.items() < truth.items()
        assert sum(name.startswith("scores") for name in found) == 10 - len(named)
        resize(2 * whole)
        code, said, _ = command(*arguments, "--out", str(out))
        assert code == 0
        assert f"scored {len(named)}" in said
        assert results(local_files(out)) == truth
        assert list(problems(open_run(Location(str(out))))) == []
