"""sink: names that are safe, files that are whole, writables of every kind."""

import contextlib
import io
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from natsbridge import sink
from natsbridge.errors import NATSBridgeError


@pytest.mark.parametrize(
    ("dataname", "expected"),
    [
        ("photo.jpg", "photo.jpg"),
        ("größe.txt", "größe.txt"),
        ("", "payload"),
        (".", "_"),
        ("..", "_"),
        ("../../etc/passwd", "_._.._etc_passwd"),
        ("a/b\\c:d", "a_b_c_d"),
        (".bashrc", "_bashrc"),
        ("CON", "_CON"),
        ("nul.txt", "_nul.txt"),
        ("a b\n", "a_b_"),
        ("x" * 200 + ".jpg", "x" * 96 + ".jpg"),
        ("a.", "a"),
    ],
)
def test_safe_names(dataname: str, expected: str) -> None:
    assert sink.safe_name(dataname) == expected


@given(st.text(max_size=300))
def test_a_safe_name_is_one_visible_part_of_a_path(dataname: str) -> None:
    name = sink.safe_name(dataname)
    assert 0 < len(name.encode()) <= sink.MAX_NAME + 1
    assert not name.startswith(".")
    assert not set(name) & set('/\\:*?"<>|\0\n ')
    assert Path(name).name == name


class TestFiles:
    def test_the_final_name_appears_when_everything_is_there(self, tmp_path: Path) -> None:
        target = sink.FileTarget(tmp_path, "a.bin")
        target.write(b"ab")
        target.write(memoryview(b"c"))
        assert [p.suffix for p in tmp_path.iterdir()] == [".part"]
        assert target.commit() == str(tmp_path / "a.bin")
        assert [p.name for p in tmp_path.iterdir()] == ["a.bin"]
        assert (tmp_path / "a.bin").read_bytes() == b"abc"

    def test_no_name_is_taken_twice(self, tmp_path: Path) -> None:
        names = []
        for _ in range(3):
            target = sink.FileTarget(tmp_path, "a.tar.gz")
            names.append(Path(target.commit()).name)
        assert names == ["a.tar.gz", "a.tar-1.gz", "a.tar-2.gz"]

    def test_the_next_of_many_files_of_one_name_is_found_with_few_looks(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        looks: list[str] = []

        def taken(path: Path) -> bool:
            looks.append(path.name)
            number = int(path.stem.partition("-")[2] or 0)
            return number < 100_000

        monkeypatch.setattr(os.path, "lexists", taken)
        assert Path(sink.FileTarget(tmp_path, "a.csv").commit()).name == "a-100000.csv"
        assert len(looks) < 40
        # Where somebody else is faster, the one after it.
        assert Path(sink.FileTarget(tmp_path, "a.csv").commit()).name == "a-100001.csv"

    def test_a_discarded_file_is_gone_before_and_after_commit(self, tmp_path: Path) -> None:
        first, second = sink.FileTarget(tmp_path, "a"), sink.FileTarget(tmp_path, "b")
        second.commit()
        first.discard()
        second.discard()
        assert list(tmp_path.iterdir()) == []

    def test_restart_empties_the_file(self, tmp_path: Path) -> None:
        target = sink.FileTarget(tmp_path, "a")
        target.write(b"longer")
        assert target.restart()
        target.write(b"new")
        assert Path(target.commit()).read_bytes() == b"new"

    def test_without_hard_links_nothing_is_overwritten_either(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def no_link(old: object, new: object) -> None:
            raise OSError("not supported")

        monkeypatch.setattr(os, "link", no_link)
        (tmp_path / "a").write_bytes(b"old")
        target = sink.FileTarget(tmp_path, "a")
        target.write(b"new")
        assert target.commit() == str(tmp_path / "a-1")
        assert (tmp_path / "a").read_bytes() == b"old"

    def test_what_a_killed_receiver_left_goes_and_what_another_one_writes_stays(
        self, tmp_path: Path
    ) -> None:
        script = """
import os, sys, time
from natsbridge.sink import FileTarget
targets = [FileTarget(sys.argv[1], "a") for _ in range(2)]
print("ready", flush=True)
time.sleep(60)
"""
        mine = tmp_path / ".notes.part"
        mine.write_bytes(b"mine")
        processes = [
            subprocess.Popen(
                [sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE, text=True
            )
            for _ in range(2)
        ]
        try:
            for process in processes:
                assert process.stdout is not None
                assert process.stdout.readline() == "ready\n"
            assert len(list(tmp_path.iterdir())) == 5
            processes[0].kill()
            processes[0].wait()
            target = sink.FileTarget(tmp_path, "b")
            assert len(list(tmp_path.iterdir())) == 4
        finally:
            for process in processes:
                process.kill()
                process.communicate()
        target.write(b"whole")
        assert Path(target.commit()).read_bytes() == b"whole"
        sink._cleaned.clear()  # as in another process
        sink.FileTarget(tmp_path, "c").discard()
        assert sorted(path.name for path in tmp_path.iterdir()) == [".notes.part", "b"]

    def test_a_file_that_was_removed_before_it_was_locked_is_made_again(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        removed = []

        def lock(file: io.FileIO) -> None:
            if not removed:
                removed.append(Path(str(file.name)))
                removed[0].unlink()

        monkeypatch.setattr(sink, "_lock", lock)
        target = sink.FileTarget(tmp_path, "a")
        target.write(b"x")
        assert Path(target.commit()).read_bytes() == b"x"
        assert removed

    def test_a_folder_that_does_not_exist_is_an_error(self, tmp_path: Path) -> None:
        with pytest.raises(NATSBridgeError) as e:
            sink.FileTarget(tmp_path / "none", "a")
        assert e.value.code == "INVALID_ARGUMENT"


class TestWritables:
    def test_short_writes_are_continued(self) -> None:
        class Slow(io.BytesIO):
            def write(self, data: Any) -> int:
                return super().write(memoryview(data)[:2])

        out = Slow()
        sink.WritableTarget("d", out).write(b"abcde")
        assert out.getvalue() == b"abcde"

    def test_restart_goes_back_to_where_writing_began(self) -> None:
        out = io.BytesIO(b"head")
        out.seek(4)
        target = sink.WritableTarget("d", out)
        target.write(b"wrong!")
        assert target.restart()
        target.write(b"good")
        assert target.commit() is out
        assert out.getvalue() == b"headgood"

    def test_a_writable_without_seek_cannot_restart(self) -> None:
        class Out:
            def __init__(self) -> None:
                self.got = b""

            def write(self, data: Any) -> None:
                self.got += data

        out = Out()
        target = sink.WritableTarget("d", out)
        target.write(b"abc")
        assert not target.restart()
        assert out.got == b"abc"

    def test_what_cannot_be_written_to_is_refused(self) -> None:
        with pytest.raises(NATSBridgeError, match=r"write\(\)") as e:
            sink.WritableTarget("d", 5)
        assert e.value.code == "INVALID_ARGUMENT"

    @pytest.mark.parametrize("count", [0, -1, False])
    def test_a_writable_that_takes_nothing_is_not_asked_for_ever(self, count: int) -> None:
        class Stuck(io.RawIOBase):
            def write(self, data: Any) -> int:
                return count

        with pytest.raises(NATSBridgeError, match="took") as e:
            sink.WritableTarget("d", Stuck()).write(b"x")
        assert e.value.code == "INVALID_ARGUMENT"

    @pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux has it")
    def test_a_disk_that_is_full_behind_a_buffer(self) -> None:
        with contextlib.suppress(OSError), Path("/dev/full").open("wb") as full:
            target = sink.WritableTarget("d", full)
            target.write(b"x")
            with pytest.raises(NATSBridgeError, match="No space left"):
                target.commit()

    def test_a_full_disk_is_an_error_of_ours(self) -> None:
        class Full(io.RawIOBase):
            def write(self, data: Any) -> int:
                raise OSError(28, "No space left on device")

        with pytest.raises(NATSBridgeError, match="No space left"):
            sink.WritableTarget("d", Full()).write(b"x")
