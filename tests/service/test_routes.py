"""The routes: what programs add, find, list, compare and remove, and what each answer says."""

import io
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image

from tests.service.conftest import Serving, add, search
from vit4icd.collection import Answer, Collection
from vit4icd.images import read_image, resize, write_image
from vit4icd.service.problems import CODES, MEDIA_TYPE, Problem


def test_finds_a_picture_as_soon_as_its_addition_is_answered(
    client: TestClient, pictures: list[Path]
) -> None:
    data = pictures[2].read_bytes()
    added = add(client, data, "a/b c?.jpg", metadata=json.dumps({"owner": "me"}))
    assert added.status_code == 201
    assert added.json()["outcome"] == "stored"
    found = search(client, data).json()
    assert found["matches"][0]["reference"] == "a/b c?.jpg"
    assert found["matches"][0]["verdict"] == "exact"
    assert found["matches"][0]["metadata"] == {"owner": "me"}
    assert found["query"]["name"] == "query.jpg"


def test_adds_once_whatever_is_sent_again(client: TestClient, pictures: list[Path]) -> None:
    one, other = (path.read_bytes() for path in pictures[:2])
    assert add(client, one, "x").status_code == 201
    again = add(client, one, "x")
    assert (again.status_code, again.json()["outcome"]) == (200, "unchanged")
    assert again.json()["basis"]["n_images"] == 1
    assert add(client, other, "x").json()["outcome"] == "stored"
    assert search(client, other).json()["matches"][0]["verdict"] == "exact"
    nameless = add(client, one).json()
    assert nameless["id"] == nameless["sha256"]


def test_says_with_every_answer_what_it_rests_on(filled: TestClient, pictures: list[Path]) -> None:
    before = search(filled, pictures[0].read_bytes()).json()["basis"]
    assert before["threshold"] == 0.9
    assert before["n_images"] == 6
    assert filled.delete("/v1/collections/mine/images/000.jpg").status_code == 200
    after = search(filled, pictures[0].read_bytes(), threshold=0.5).json()["basis"]
    assert after["version"] > before["version"]
    assert after["fingerprint"] == before["fingerprint"]
    assert (after["threshold"], after["n_images"]) == (0.5, 5)


@pytest.mark.parametrize("id_", ["a/b", "x y", "é🐈", "?x=1#y", "&"])
def test_finds_pictures_under_their_ids_in_addresses(
    filled: TestClient, pictures: list[Path], id_: str
) -> None:
    add(filled, pictures[0].read_bytes(), id_)
    path = f"/v1/collections/mine/images/{quote(id_, safe='')}"
    assert filled.get(path).json()["image"]["id"] == id_
    assert filled.delete(path).json()["n_removed"] == 1


def test_lists_all_pictures_page_by_page(filled: TestClient) -> None:
    seen: list[str] = []
    after = None
    for _ in range(4):
        params = {"limit": "2"} | ({"after": after} if after else {})
        page = filled.get("/v1/collections/mine/images", params=params).json()
        seen += [image["id"] for image in page["images"]]
        after = page["next"]
    assert seen == [f"{number:03d}.jpg" for number in range(6)]
    assert after is None


def test_removes_a_picture_and_its_preview(filled: TestClient, pictures: list[Path]) -> None:
    image = filled.get("/v1/collections/mine/images/003.jpg").json()["image"]
    shown = filled.get(f"/v1/images/{image['picture']}/thumbnail")
    assert Image.open(io.BytesIO(shown.content)).size == (image["width"], image["height"])
    assert filled.delete("/v1/collections/mine/images/003.jpg").json()["n_removed"] == 1
    assert filled.get(f"/v1/images/{image['picture']}/thumbnail").status_code == 404
    assert filled.delete("/v1/collections/mine/images/003.jpg").json()["code"] == "not_found"
    found = search(filled, pictures[3].read_bytes()).json()["matches"]
    assert all(match["reference"] != "003.jpg" for match in found)


def test_forgets_the_preview_of_a_picture_that_is_replaced(
    client: TestClient, pictures: list[Path]
) -> None:
    first, second = (path.read_bytes() for path in pictures[:2])
    previews = client.app.state.service.previews  # type: ignore[attr-defined]
    shas = [add(client, data, "one").json()["sha256"] for data in (first, second)]
    assert [previews.read(sha) is None for sha in shas] == [True, False]
    assert client.delete("/v1/collections/mine/images/one").status_code == 200
    assert previews.read(shas[1]) is None


def test_forgets_the_preview_that_was_made_of_a_file(
    serving: Serving, pictures: list[Path]
) -> None:
    with serving(pictures=pictures[0].parent) as client:
        held = client.app.state.service  # type: ignore[attr-defined]
        held.library.first.collection.add(pictures[:1], id_from="name")
        image = client.get("/v1/collections/mine/images/000.jpg").json()["image"]
        assert client.get(f"/v1/images/{image['picture']}/thumbnail").status_code == 200
        assert held.previews.read(image["sha256"]) is not None
        assert client.delete("/v1/collections/mine/images/000.jpg").status_code == 200
        assert held.previews.read(image["sha256"]) is None


def test_refuses_metadata_that_is_no_text(client: TestClient, pictures: list[Path]) -> None:
    data = pictures[0].read_bytes()
    for text in ('{"a": "\\ud83d"}', "[" * 20_000):
        answer = add(client, data, "one", metadata=text)
        assert (answer.status_code, answer.json()["code"]) == (400, "invalid_request")


def test_shows_previews_of_1024_pixels_at_most(client: TestClient, tmp_path: Path) -> None:
    picture = np.random.default_rng(1).integers(0, 255, (9, 12, 3)).astype(np.uint8)
    wide = np.asarray(Image.fromarray(picture).resize((2_400, 1_200)))
    write_image(tmp_path / "wide.jpg", wide, suffix=".jpg")
    added = add(client, (tmp_path / "wide.jpg").read_bytes()).json()
    for size, expected in (("full", (1_024, 512)), ("card", (480, 240))):
        shown = client.get(f"/v1/images/{added['picture']}/thumbnail", params={"size": size})
        assert Image.open(io.BytesIO(shown.content)).size == expected


def test_compares_two_uploads(client: TestClient, pictures: list[Path]) -> None:
    one, other = (path.read_bytes() for path in pictures[:2])
    files = {"query": ("q.jpg", one), "reference": ("r.jpg", one)}
    same = client.post("/v1/compare", files=files).json()
    assert same["match"]["verdict"] == "exact"
    assert same["match"]["similarity"] == pytest.approx(1.0, abs=1e-4)
    different = client.post(
        "/v1/compare", files={"query": ("q.jpg", one), "reference": ("r.jpg", other)}
    ).json()
    assert different["match"]["verdict"] != "exact"
    lone = client.post("/v1/compare", files={"query": ("q.jpg", one)})
    assert (lone.status_code, lone.json()["code"]) == (400, "invalid_request")


@pytest.mark.parametrize(
    ("data", "status", "code"),
    [
        (b"", 422, "empty"),
        (b"no picture at all", 415, "unsupported_format"),
        (b"\xff\xd8\xff\xe0 and nothing of use", 422, "truncated"),
        ("blank", 422, "image_too_plain"),
    ],
)
def test_names_what_is_wrong_with_a_picture(
    client: TestClient, data: bytes | str, status: int, code: str
) -> None:
    if isinstance(data, str):
        sink = io.BytesIO()
        Image.new("RGB", (64, 64), "white").save(sink, "PNG")
        data = sink.getvalue()
    for answer in (add(client, data, "x"), search(client, data)):
        problem = answer.json()
        assert answer.headers["content-type"] == MEDIA_TYPE
        assert (answer.status_code, problem["code"]) == (status, code)
        assert problem["status"] == CODES[code][0]
        assert problem["request_id"] == answer.headers["x-request-id"]


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/nowhere", 404, "not_found"),
        ("GET", "/v1/collections/other/images", 404, "not_found"),
        ("PUT", "/v1/compare", 405, "not_allowed"),
        ("GET", "/v1/collections/mine/images?limit=0", 400, "invalid_request"),
        ("GET", "/v1/jobs/none", 404, "not_found"),
        ("GET", "/v1/matches/none", 404, "not_found"),
        ("GET", "/v1/images/none/thumbnail", 404, "not_found"),
        ("POST", "/v1/decisions", 400, "invalid_request"),
    ],
)
def test_answers_mistakes_with_problem_documents(
    client: TestClient, method: str, path: str, status: int, code: str
) -> None:
    answer = client.request(method, path)
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert answer.headers["content-type"] == MEDIA_TYPE


def test_finds_what_is_cut_out_of_a_picture(client: TestClient, pictures: list[Path]) -> None:
    image = read_image(pictures[3])
    part = np.ascontiguousarray(image[: image.shape[0] // 2, : image.shape[1] // 2])
    held = io.BytesIO()
    Image.fromarray(part).save(held, "PNG")
    for path in pictures:
        assert add(client, path.read_bytes(), path.name).status_code == 201
    before = search(client, held.getvalue(), threshold=-2).json()["matches"]
    assert {match["reference_part"] for match in before} == {"whole"}
    again = add(client, pictures[3].read_bytes(), "003.jpg", regions="true").json()
    assert again["outcome"] == "stored"
    (found, *_) = search(client, held.getvalue(), threshold=-2).json()["matches"]
    assert (found["reference"], found["reference_part"]) == ("003.jpg", "top left")
    assert found["query_part"] == "whole"
    assert found["similarity"] > 0.999


def test_searches_parts_of_the_query(filled: TestClient, pictures: list[Path]) -> None:
    canvas = np.full((96, 120, 3), 255, np.uint8)
    canvas[48:, 60:] = resize(read_image(pictures[3]), 60, 48)
    held = io.BytesIO()
    Image.fromarray(canvas).save(held, "PNG")
    answer = search(filled, held.getvalue(), regions=True, threshold=-2, review=True)
    (found, *_) = answer.json()["matches"]
    assert (found["reference"], found["orientation"]) == ("003.jpg", "upright, bottom right")
    assert (found["query_part"], found["reference_part"]) == ("bottom right", "whole")
    kept = filled.get(f"/v1/matches/{found['id']}").json()["match"]
    assert kept["query_part"] == "bottom right"


def test_refuses_thresholds_that_are_none(client: TestClient, pictures: list[Path]) -> None:
    answer = search(client, pictures[0].read_bytes(), threshold="often")
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_option")


def test_shows_pictures_of_others_only_below_the_folder_named(
    serving: Serving, pictures: list[Path], tmp_path: Path
) -> None:
    from tests.service.conftest import make_known_model
    from vit4icd.collection import Collection
    from vit4icd.service.handles import handle_of_reference

    model = make_known_model(tmp_path / "model")
    secret = tmp_path / "secret.jpg"
    secret.write_bytes(pictures[5].read_bytes())
    link = pictures[0].parent / "link.jpg"
    link.symlink_to(secret)
    collection = Collection.create(tmp_path / "collection", model=model)
    collection.add([pictures[0], secret, link, pictures[1]])
    pictures[1].write_bytes(pictures[2].read_bytes())  # another picture by now
    expected = {pictures[0]: 200, secret: 404, link: 404, pictures[1]: 404}
    with serving(pictures=pictures[0].parent) as client:
        for path, status in expected.items():
            handle = handle_of_reference("mine", str(path))
            assert client.get(f"/v1/images/{handle}/thumbnail").status_code == status, path
    with serving(data=tmp_path / "other") as client:
        handle = handle_of_reference("mine", str(pictures[0]))
        assert client.get(f"/v1/images/{handle}/thumbnail").json()["code"] == "no_preview"


def test_lives_before_it_is_ready_and_says_what_it_waits_for(client: TestClient) -> None:
    held = client.app.state.service  # type: ignore[attr-defined]
    held.not_ready = Problem("loading", "reading the collection mine")
    assert client.get("/healthz").text == "alive\n"
    waiting = client.get("/readyz")
    assert (waiting.status_code, waiting.json()["code"]) == (503, "loading")
    assert "mine" in waiting.json()["detail"]
    held.not_ready = None
    assert client.get("/readyz").text == "ready\n"


def test_counts_requests_by_route_for_monitors(filled: TestClient, pictures: list[Path]) -> None:
    for _ in range(3):
        assert filled.get("/v1/collections/mine/images/004.jpg").status_code == 200
    assert search(filled, b"no picture").status_code == 415
    search(filled, pictures[0].read_bytes(), review=True)
    text = filled.get("/metrics").text
    route = 'route="/v1/collections/{collection}/images/{id:path}"'
    assert f'vit4icd_requests_total{{method="GET",{route},status="200"}} 3.0' in text
    assert 'route="/v1/collections/{collection}/search",status="415"} 1.0' in text
    assert "vit4icd_images 6.0" in text
    assert "vit4icd_waiting_jobs 0.0" in text
    assert "vit4icd_undecided_pairs 1.0" in text
    if sys.platform == "linux":
        assert "\nprocess_resident_memory_bytes " in text
    assert "vit4icd_batch_jobs_count" in text


def test_counts_methods_that_nobody_knows_as_one(client: TestClient) -> None:
    for method in ("FOO", "BAR"):
        assert client.request(method, "/v1/collections").status_code == 405
    text = client.get("/metrics").text
    assert 'vit4icd_requests_total{method="other"' in text
    assert "FOO" not in text


def test_refuses_ids_that_would_become_others(client: TestClient, pictures: list[Path]) -> None:
    path, files = "/v1/collections/mine/images", {"image": ("any.jpg", pictures[0].read_bytes())}
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    for answer in (
        client.post(f"{path}?id=caf%e9", files=files),
        client.delete(f"{path}/caf%e9"),
        client.post(path, content=b"image_url=http://a.example/&id=caf%e9", headers=form),
    ):
        assert (answer.status_code, answer.json()["code"]) == (400, "invalid_request")
        assert "UTF-8" in answer.json()["detail"]
    assert client.post(f"{path}?id=caf%C3%A9", files=files).json()["id"] == "café"


def test_describes_itself(client: TestClient) -> None:
    document = client.get("/openapi.json").json()
    assert document["openapi"].startswith("3.")
    page = client.get("/docs").text
    add_image = document["paths"]["/v1/collections/{collection}/images"]["post"]
    assert {"200", "201"} <= add_image["responses"].keys()
    for path, methods in document["paths"].items():
        assert path in page
        for operation in methods.values():
            assert "422" not in operation["responses"]


def test_draws_the_overlay_of_a_match(tmp_path: Path) -> None:
    from vit4icd.service.overlays import draw_overlay, prove

    photograph = Path(__file__).parents[2] / "src/vit4icd/demo/photographs/cat.jpg"
    reference = photograph.read_bytes()
    whole = read_image(reference)
    height, width = whole.shape[:2]
    part = whole[height // 5 : -height // 5, width // 5 : -width // 5]
    write_image(tmp_path / "part.jpg", part, suffix=".jpg")
    query = (tmp_path / "part.jpg").read_bytes()
    overlap = prove(query, reference)
    assert overlap is not None
    assert overlap["query_share"] > 0.9
    drawn = read_image(draw_overlay(query, reference, overlap))
    assert drawn.shape == part.shape
    inner = (slice(40, -40), slice(40, -40))
    error = np.abs(drawn[inner].astype(int) - part[inner].astype(int)).mean()
    assert error < 12  # the reference lies where the query shows the same


def test_names_the_version_that_was_searched(
    client: TestClient, pictures: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def late(collection: Collection, images: list[bytes], **options: Any) -> Iterator[Answer]:
        monkeypatch.setattr(Collection, "ask", ask)
        collection.add([pictures[1]], ids=["late"])  # after the request looked, before it searches
        return ask(collection, images, **options)

    ask = Collection.ask
    add(client, pictures[0].read_bytes(), "early")
    monkeypatch.setattr(Collection, "ask", late)
    found = search(client, pictures[1].read_bytes(), k=1).json()
    assert found["matches"][0]["reference"] == "late"
    again = search(client, pictures[1].read_bytes(), k=1).json()
    assert found["basis"] == again["basis"]
    assert found["basis"]["n_images"] == 2
