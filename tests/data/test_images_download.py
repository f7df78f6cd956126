"""MNIST and CIFAR-10 from a server of our own, whole, broken off, and wrong."""

import gzip
import hashlib
import io
import tarfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from waveflow.data import cifar10, download_images, mnist
from waveflow.data.cifar10 import download_cifar10
from waveflow.data.mnist import download_mnist
from waveflow.errors import InputError


class Server:
    """Serves files by name; may break off after ``cut`` bytes. Remembers what was asked."""

    def __init__(self, files, cut=None):
        self.files, self.cut, self.asked = files, cut, []

    def __enter__(self):
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                name, asked = self.path.lstrip("/"), self.headers.get("Range")
                outer.asked.append((name, asked))
                start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked else 0
                content = outer.files.get(name)
                if content is None or start >= len(content):
                    self.send_error(404 if content is None else 416)
                    return
                self.send_response(206 if start else 200)
                self.send_header("Content-Length", str(len(content) - start))
                self.end_headers()
                self.wfile.write(content[start:][: outer.cut])

            def log_message(self, *args):
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}"
        threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        return self

    def __exit__(self, *exception):
        self.http.shutdown()
        self.http.server_close()


CONTENTS = {name: name.encode() * 50 for name in mnist.MD5}
FILES = {f"{name}.gz": gzip.compress(content) for name, content in CONTENTS.items()}


@pytest.fixture
def small_mnist(monkeypatch):
    """MNIST is what CONTENTS says."""
    for name, content in CONTENTS.items():
        monkeypatch.setitem(mnist.MD5, name, hashlib.md5(content).hexdigest())


def assert_whole(folder):
    assert {path.name: gzip.decompress(path.read_bytes()) for path in folder.iterdir()} == {
        f"{name}.gz": content for name, content in CONTENTS.items()
    }


def test_the_four_files_are_fetched_once(small_mnist, tmp_path):
    with Server(FILES) as server:
        assert download_mnist(tmp_path / "new" / "folder", server.url, progress=False) == tmp_path / "new" / "folder"
        assert_whole(tmp_path / "new" / "folder")
        download_mnist(tmp_path / "new" / "folder", server.url, progress=False)
        assert sorted(server.asked) == sorted((name, None) for name in FILES)


def test_the_content_counts_and_not_its_compression(small_mnist, tmp_path):
    anew = {name: gzip.compress(gzip.decompress(content), 1, mtime=9) for name, content in FILES.items()}
    assert anew != FILES
    with Server(anew) as server:
        download_mnist(tmp_path, server.url, progress=False)
    assert_whole(tmp_path)


def test_what_is_there_is_left_alone(small_mnist, tmp_path):
    name = "t10k-labels-idx1-ubyte"
    (tmp_path / name).write_bytes(b"mine")
    with Server(FILES) as server:
        download_mnist(tmp_path, server.url, progress=False)
        assert len(server.asked) == 3
    assert (tmp_path / name).read_bytes() == b"mine" and not (tmp_path / f"{name}.gz").exists()


def test_a_broken_download_is_continued(small_mnist, tmp_path):
    with Server(FILES, cut=20) as server:
        with pytest.raises(InputError, match=r"20 of .* run again to continue"):
            download_mnist(tmp_path, server.url, progress=False)
        assert [path.suffix for path in tmp_path.iterdir()] == [".part"]
        server.cut = None
        download_mnist(tmp_path, server.url, progress=False)
        assert server.asked[1][1] == "bytes=20-"
    assert_whole(tmp_path)


@pytest.mark.parametrize("content", [gzip.compress(b"something else"), b"<html>Please log in</html>"])
def test_other_content_is_refused_and_removed(small_mnist, content, tmp_path):
    with Server(dict.fromkeys(FILES, content)) as server, pytest.raises(InputError, match="expected content of MD5"):
        download_mnist(tmp_path, server.url, progress=False)
    assert not list(tmp_path.iterdir())


def archive(members):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def test_cifar10_is_fetched_checked_and_unpacked(tmp_path):
    content = archive({"cifar-10-batches-py/test_batch": b"x" * 300})
    md5 = hashlib.md5(content).hexdigest()
    with Server({"c.tar.gz": content}, cut=30) as server:
        with pytest.raises(InputError, match="run again to continue"):
            download_cifar10(tmp_path, f"{server.url}/c.tar.gz", md5, progress=False)
        server.cut = None
        for _ in range(2):
            folder = download_cifar10(tmp_path, f"{server.url}/c.tar.gz", md5, progress=False)
        assert [asked for _, asked in server.asked] == [None, "bytes=30-"]
    assert folder == tmp_path / "cifar-10-batches-py" and (folder / "test_batch").read_bytes() == b"x" * 300
    assert list(tmp_path.iterdir()) == [folder]


def test_another_archive_is_refused_and_removed(tmp_path):
    content = archive({"cifar-10-batches-py/test_batch": b""})
    with Server({"c.tar.gz": content}) as server, pytest.raises(InputError, match=f"expected MD5 {cifar10.MD5}, got"):
        download_cifar10(tmp_path, f"{server.url}/c.tar.gz", progress=False)
    assert not list(tmp_path.iterdir())


def test_without_a_network_one_line_says_so(tmp_path):
    with Server({}) as server:
        url = server.url
    for call in (lambda: download_mnist(tmp_path, url), lambda: download_cifar10(tmp_path, url)):
        with pytest.raises(InputError, match=r"cannot download .*network") as caught:
            call()
        assert "\n" not in str(caught.value)


def test_only_some_sets_are_fetched(tmp_path):
    with pytest.raises(InputError, match="--download belongs to mnist and cifar10, got it with digits"):
        download_images("digits", tmp_path)
    (tmp_path / "cifar-10-batches-py").mkdir()
    download_images("cifar10", tmp_path)  # is there: no network is asked


def test_the_published_files_are_the_default():
    assert cifar10.URL.endswith("/cifar-10-python.tar.gz") and cifar10.MD5 == "c58f30108f718f92721af3b95e74349a"
    assert mnist.MD5["train-images-idx3-ubyte"] == "6bbc9ace898e44ae57da46a324031adb"
