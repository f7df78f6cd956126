"""download_ljspeech against a small archive on a server of our own."""

import hashlib
import io
import tarfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from waveflow.data import download_ljspeech
from waveflow.data.ljspeech import SHA256, URL
from waveflow.errors import InputError

PART = "LJSpeech-1.1.tar.bz2.part"


def archive(members):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:bz2") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


GOOD = archive({"LJSpeech-1.1/metadata.csv": b"a|A|A\n", "LJSpeech-1.1/wavs/a.wav": bytes(range(256)) * 50})


class Server:
    """Serves `content`; may break off after `cut` bytes, may not know ranges. Remembers what was asked."""

    def __init__(self, content=GOOD, cut=None, ranges=True, status=None):
        self.content, self.cut, self.ranges, self.status = content, cut, ranges, status
        self.asked = []

    def __enter__(self):
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                asked = self.headers.get("Range")
                outer.asked.append(asked)
                start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked and outer.ranges else 0
                if outer.status or start >= len(outer.content):
                    self.send_error(outer.status or 416)
                    return
                body = outer.content[start:]
                self.send_response(206 if start else 200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body[: outer.cut])

            def log_message(self, *args):
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}/LJSpeech-1.1.tar.bz2"
        threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        return self

    def __exit__(self, *exception):
        self.http.shutdown()
        self.http.server_close()


def fetch(folder, url, content=GOOD):
    return download_ljspeech(folder, url, hashlib.sha256(content).hexdigest(), progress=False)


def assert_unpacked(folder):
    assert [path.name for path in folder.iterdir()] == ["LJSpeech-1.1"]
    assert (folder / "LJSpeech-1.1/metadata.csv").read_text() == "a|A|A\n"
    assert (folder / "LJSpeech-1.1/wavs/a.wav").stat().st_size == 12800


def test_the_archive_is_fetched_checked_and_unpacked(tmp_path):
    with Server() as server:
        assert fetch(tmp_path / "new" / "folder", server.url) == tmp_path / "new" / "folder" / "LJSpeech-1.1"
        assert_unpacked(tmp_path / "new" / "folder")
        fetch(tmp_path / "new" / "folder", server.url)
        assert len(server.asked) == 1  # nothing is fetched twice


def test_a_file_url_works_too(tmp_path):
    (tmp_path / "mirror.tar.bz2").write_bytes(GOOD)
    fetch(tmp_path / "data", (tmp_path / "mirror.tar.bz2").as_uri())
    assert_unpacked(tmp_path / "data")


def test_an_interrupted_download_is_continued(tmp_path):
    with Server(cut=70) as server:
        with pytest.raises(InputError, match=rf"70 of {len(GOOD)} bytes.*run again to continue"):
            fetch(tmp_path, server.url)
        assert [path.name for path in tmp_path.iterdir()] == [PART]
        server.cut = None
        fetch(tmp_path, server.url)
        assert server.asked == [None, "bytes=70-"]
    assert_unpacked(tmp_path)


def test_a_server_without_ranges_starts_anew(tmp_path):
    (tmp_path / PART).write_bytes(GOOD[:70])
    with Server(ranges=False) as server:
        fetch(tmp_path, server.url)
    assert_unpacked(tmp_path)


def test_a_whole_download_that_was_not_unpacked_is_used(tmp_path):
    (tmp_path / PART).write_bytes(GOOD)
    with Server() as server:
        fetch(tmp_path, server.url)
    assert_unpacked(tmp_path)


def test_a_wrong_checksum_is_refused_and_cleaned_up(tmp_path):
    with Server(content=GOOD[:-1] + b"?") as server, pytest.raises(InputError, match="expected SHA-256"):
        fetch(tmp_path, server.url)
    assert not list(tmp_path.iterdir())


def test_a_stale_part_ends_in_a_clean_second_try(tmp_path):
    (tmp_path / PART).write_bytes(b"x" * 70)
    with Server() as server:
        with pytest.raises(InputError, match="try again"):
            fetch(tmp_path, server.url)
        fetch(tmp_path, server.url)
    assert_unpacked(tmp_path)


def test_an_error_of_the_server_is_told(tmp_path):
    with Server(status=404) as server, pytest.raises(InputError, match="404"):
        fetch(tmp_path, server.url)


def test_without_a_network_one_line_says_so(tmp_path):
    with Server() as server:
        url = server.url
    with pytest.raises(InputError, match=r"cannot download .*network") as caught:
        fetch(tmp_path, url)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["../escaped.txt", "LJSpeech-1.1/../../../escaped.txt"])
def test_members_that_leave_the_folder_are_refused(tmp_path, name):
    content = archive({"LJSpeech-1.1/metadata.csv": b"", name: b"evil"})
    with Server(content) as server, pytest.raises(InputError, match="cannot unpack"):
        fetch(tmp_path / "data", server.url, content)
    assert [path.name for path in (tmp_path / "data").iterdir()] == [PART]
    assert not list(tmp_path.rglob("escaped.txt"))


def test_another_archive_is_refused(tmp_path):
    content = archive({"else/metadata.csv": b""})
    with Server(content) as server, pytest.raises(InputError, match=r"expected a folder LJSpeech-1\.1"):
        fetch(tmp_path, server.url, content)


def test_the_published_archive_is_the_default():
    assert URL.endswith("/LJSpeech-1.1.tar.bz2")
    assert SHA256 == "be1a30453f28eb8dd26af4101ae40cbf2c50413b1bb21936cbcdc6fae3de8aa5"
