"""Weights by name and by address, against a server on the loopback."""

import hashlib
import io
import json
import socket
import threading
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.request import Request

import pytest
import torch
import torchvision
from safetensors.torch import save

from trunkline.backbones import ARCHITECTURES, Preprocessing, backbone, download, read_weights, resnet, sources
from trunkline.ground.errors import WeightsError


@pytest.fixture(scope="module")
def tensors():
    torch.manual_seed(0)
    return torchvision.models.resnet18(num_classes=10).state_dict()


@pytest.fixture(scope="module")
def body(tensors) -> bytes:
    return save(tensors)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TRUNKLINE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "weights"


class Server:
    """Answers by path; counts the requests of each."""

    def __init__(self) -> None:
        self.answers: dict[str, tuple[int, dict[str, str], bytes]] = {}
        self.asked: list[str] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                outer.asked.append(self.path)
                code, headers, content = outer.answers.get(self.path, (404, {}, b""))
                self.send_response(code)
                for name, value in {"Content-Length": str(len(content)), **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *args):
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}"
        threading.Thread(target=self.http.serve_forever, args=(0.01,), daemon=True).start()


@pytest.fixture
def server():
    server = Server()
    yield server
    server.http.shutdown()
    server.http.server_close()


def nothing_kept(cache) -> bool:
    return not cache.exists() or not list(cache.iterdir())


def test_an_address_is_downloaded_once_and_checked_again(server, cache, body, tensors):
    server.answers["/a/model.safetensors"] = (200, {}, body)
    address = f"{server.url}/a/model.safetensors#sha256={hashlib.sha256(body).hexdigest()}"
    for _ in range(2):
        weights = read_weights(address)
        assert weights.arch == "resnet18" and torch.equal(weights.tensors["fc.bias"], tensors["fc.bias"])
    assert len(server.asked) == 1 and weights.sha256 == hashlib.sha256(body).hexdigest()
    assert weights.source == address and weights.info["url"] == address.split("#")[0]
    kept = sorted(path.name for path in cache.iterdir())
    assert len(kept) == 2 and kept[0].endswith("--model.safetensors") and kept[1] == kept[0] + ".sha256"

    (cache / kept[0]).write_bytes(body[:-1] + b"x")
    with pytest.raises(WeightsError, match=r"damaged or replaced and has been removed"):
        read_weights(address)
    assert nothing_kept(cache)
    assert read_weights(address).arch == "resnet18"


def test_two_addresses_of_one_file_name_do_not_mix(server, body):
    server.answers["/a/model.safetensors"] = (200, {}, body)
    server.answers["/b/model.safetensors"] = (200, {}, save(resnet("resnet34").state_dict()))
    assert read_weights(f"{server.url}/a/model.safetensors").arch == "resnet18"
    assert read_weights(f"{server.url}/b/model.safetensors").arch == "resnet34"


def test_a_wrong_hash_is_refused_and_removed(server, cache, body):
    right = hashlib.sha256(body).hexdigest()
    server.answers["/w.safetensors"] = (200, {}, body)
    server.answers["/w-01234567.safetensors"] = (200, {}, body)
    server.answers["/said.safetensors"] = (200, {"X-Linked-ETag": f'"{"0" * 64}"'}, body)
    for path, expected in (
        (f"/w.safetensors#sha256={'1' * 64}", "1" * 64),
        ("/w-01234567.safetensors", "01234567"),
        ("/said.safetensors", "0" * 64),
    ):
        with pytest.raises(WeightsError, match=rf"SHA-256 {right}, expected {expected}; refused and removed"):
            read_weights(server.url + path)
        assert nothing_kept(cache)
    server.answers["/said.safetensors"] = (200, {"X-Linked-ETag": f'"{right}"'}, body)
    assert read_weights(f"{server.url}/said.safetensors").arch == "resnet18"


def test_the_hash_that_a_redirecting_server_states_counts(server, cache, body):
    server.answers["/blob.safetensors"] = (200, {}, body)
    moved = {"Location": f"{server.url}/blob.safetensors", "X-Linked-ETag": f'"{"0" * 64}"'}
    server.answers["/hub.safetensors"] = (302, moved, b"")
    with pytest.raises(WeightsError, match=r"expected 0{64}"):
        read_weights(f"{server.url}/hub.safetensors")
    moved["X-Linked-ETag"] = f'"{hashlib.sha256(body).hexdigest()}"'
    assert read_weights(f"{server.url}/hub.safetensors").arch == "resnet18"


def test_a_body_that_breaks_off_leaves_nothing(server, cache, body):
    server.answers["/w.safetensors"] = (200, {"Content-Length": str(len(body) + 100)}, body)
    with pytest.raises(WeightsError, match=rf"(broke off after {len(body)} of {len(body) + 100} bytes|IncompleteRead)"):
        read_weights(f"{server.url}/w.safetensors")
    assert nothing_kept(cache)


def test_without_a_network_the_error_says_which_file_goes_where(server, cache, body):
    with pytest.raises(WeightsError, match=r"answers 404") as told:
        read_weights(f"{server.url}/none.safetensors")
    assert str(cache) in str(told.value) and f"{server.url}/none.safetensors" in str(told.value)

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        refused = f"http://127.0.0.1:{free.getsockname()[1]}/w.safetensors"
    with pytest.raises(WeightsError, match=r"cannot download .*refused") as told:
        read_weights(refused)
    path = next(word for word in str(told.value).split() if word.startswith(str(cache)))
    assert nothing_kept(cache)
    cache.joinpath(path).write_bytes(body)  # done as told
    assert read_weights(refused).arch == "resnet18"
    assert cache.joinpath(path + ".sha256").read_text().strip() == hashlib.sha256(body).hexdigest()


def test_a_file_put_there_by_hand_is_checked_by_the_name(cache, body):
    cache.mkdir(parents=True)
    (cache / "resnet18-f37072fd.pth").write_bytes(body)
    with pytest.raises(WeightsError, match=r"expected f37072fd"):
        read_weights("resnet18.IMAGENET1K_V1")
    assert nothing_kept(cache)


def test_a_published_name_from_end_to_end(server, monkeypatch):
    """torchvision's own metadata, its file replaced by one of ours."""
    content = io.BytesIO()
    published = torchvision.models.resnet18()
    torch.save(published.state_dict(), content)
    digest = hashlib.sha256(content.getvalue()).hexdigest()
    server.answers[f"/resnet18-{digest[:8]}.pth"] = (200, {}, content.getvalue())
    real = sources.find("resnet18.IMAGENET1K_V1")
    local = replace(real, url=f"{server.url}/resnet18-{digest[:8]}.pth", digest=digest[:8])
    monkeypatch.setattr(sources, "find", lambda name: local)
    trunk = backbone("resnet18", "resnet18.IMAGENET1K_V1")
    assert str(trunk.report).startswith("120 of 122 tensors from resnet18.IMAGENET1K_V1")
    assert trunk.classes[0] == "tench" and trunk.preprocessing == Preprocessing()
    assert torch.equal(trunk.conv1.weight, published.conv1.weight)
    with pytest.raises(WeightsError, match=r"backbone=resnet18 by the file, backbone=resnet34"):
        backbone("resnet34", "resnet18.IMAGENET1K_V1")


def test_a_hub_repository_in_timms_format(server, monkeypatch, body, cache):
    monkeypatch.setenv("HF_ENDPOINT", server.url)
    config = {
        "architecture": "resnet18",
        "label_names": [f"kind {i}" for i in range(10)],
        "pretrained_cfg": {
            "input_size": [3, 96, 96],
            "crop_pct": 0.95,
            "interpolation": "bicubic",
            "mean": [0.5] * 3,
            "std": [0.25] * 3,
        },
    }
    server.answers["/me/mine/resolve/main/config.json"] = (200, {}, json.dumps(config).encode())
    server.answers["/me/mine/resolve/main/model.safetensors"] = (200, {}, body)
    weights = read_weights("hf-hub:me/mine")
    assert weights.arch == "resnet18" and weights.classes[9] == "kind 9"
    assert weights.preprocessing == Preprocessing((0.5,) * 3, (0.25,) * 3, 96, 101, "bicubic")
    config["architecture"] = "vit_base_patch16_224"
    server.answers["/me/vit/resolve/main/config.json"] = (200, {}, json.dumps(config).encode())
    with pytest.raises(WeightsError, match=r"'vit_base_patch16_224' is none of"):
        read_weights("hf-hub:me/vit")
    server.answers["/me/bad/resolve/main/config.json"] = (200, {}, b"[]")
    with pytest.raises(WeightsError, match=r"not timm's config.json"):
        read_weights("hf-hub:me/bad")


def test_torchvisions_names():
    second = sources.find("resnet50")
    assert second.url.endswith("/resnet50-11ad3fa6.pth") and second.digest == "11ad3fa6"
    assert second.preprocessing == Preprocessing(resize=232) and len(second.classes) == 1000
    assert sources.find("ResNet50_Weights.IMAGENET1K_V2").url == sources.find("resnet50.DEFAULT").url == second.url
    assert sources.find("resnet50.IMAGENET1K_V1").preprocessing.resize == 256
    for arch in ARCHITECTURES:
        found = sources.find(arch)
        assert found.arch == arch and len(found.digest) == 8 and found.file.endswith(f"-{found.digest}.pth")


def test_timms_names():
    found = sources.find("resnet50.a1_in1k")
    assert found.url.endswith("timm/resnet50.a1_in1k/resolve/main/model.safetensors")
    assert found.file == "timm--resnet50.a1_in1k--model.safetensors" and found.arch == "resnet50"
    assert found.preprocessing == Preprocessing(size=224, resize=235, interpolation="bicubic")
    assert sources.find("timm/resnet50.a1_in1k").url == found.url
    assert sources.find("timm/resnet50").url == found.url
    assert sources.find("resnet34.ra4_e3600_r224_in1k").preprocessing.mean == (0.5, 0.5, 0.5)


@pytest.mark.parametrize(
    "name, told",
    [
        ("resnet5O", "nearest: resnet50"),
        ("resnet50.a1_in1l", "nearest: resnet50.a1_in1k"),
        ("timm/resnet50.a1_in1l", "nearest: resnet50.a1_in1k"),
        ("ResNet50_Weights.IMAGENET1K_V3", "nearest: ResNet50_Weights.IMAGENET1K_V2"),
        ("resnet50d", "timm's resnet50d is another network"),
        ("timm/resnet50d.ra2_in1k", "timm's resnet50d is another network"),
        ("weights/of/mine", "neither a file here nor a name"),
        ("hf-hub:resnet50", "expected hf-hub:owner/name"),
        ("ftp://example.org/w.pth", "expected https://"),
        ("http://example.org/w.pth", "expected https://.*#sha256="),
        ("https://example.org/w.pth#md5=1", "64 hex digits"),
        ("https://example.org/", "the address of a file of weights"),
    ],
)
def test_unknown_names(name, told):
    with pytest.raises(WeightsError, match=told) as error:
        read_weights(name)
    assert name in str(error.value)


def test_https_is_not_left():
    handler = download._Redirects()
    with pytest.raises(OSError, match="from https to http://"):
        handler.redirect_request(Request("https://a.example/w.pth"), None, 302, "", {}, "http://b.example/w.pth")


def test_a_cache_that_cannot_be_written(tmp_path, monkeypatch, server):
    (tmp_path / "file").touch()
    monkeypatch.setenv("TRUNKLINE_CACHE", str(tmp_path / "file"))
    with pytest.raises(WeightsError, match="set TRUNKLINE_CACHE"):
        read_weights(f"{server.url}/w.safetensors")
