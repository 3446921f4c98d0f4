"""`dispatch db check|backup`, also while a server uses the file."""

from __future__ import annotations

from pathlib import Path

from tests.cli.command_line import APP, cli, lines
from tests.live import serving


def test_a_file_in_use_is_checked_copied_and_served_from_the_copy(tmp_path: Path) -> None:
    file, copy = tmp_path / "jobs.db", tmp_path / "copy.db"
    with serving(APP, "--queues", "nobody", db=file) as live:
        (job,) = lines(
            cli("enqueue", "resize-image", '{"image": "a", "width": 1}', "--json", live=live).stdout
        )
        (report,) = lines(cli("db", "check", str(file), "--json").stdout)
        assert (report["jobs"], report["problems"]) == ({"pending": 1}, [])
        saved = cli("db", "backup", str(file), str(copy))
        assert saved.returncode == 0, saved.stderr
        assert "complete and checked" in saved.stdout
    shown = cli("db", "check", str(copy))
    assert shown.returncode == 0
    assert "1 pending" in shown.stdout
    assert "sound" in shown.stdout
    with serving(APP, db=copy) as live:
        assert cli("job", "wait", job["job_id"], live=live).returncode == 0


def test_a_damaged_file_fails_and_says_what_is_wrong(tmp_path: Path) -> None:
    file = tmp_path / "jobs.db"
    with serving(APP, db=file):
        pass
    with file.open("r+b") as content:
        content.seek(4 * 4096)
        content.write(b"\xff" * 8192)
    result = cli("db", "check", str(file))
    assert result.returncode == 1
    assert "is damaged" in result.stderr
    assert "restore it from a backup" in result.stderr


def test_mistakes_are_told_without_a_traceback(tmp_path: Path) -> None:
    absent = cli("db", "check", str(tmp_path / "absent.db"))
    assert absent.returncode == 2
    assert "there is no file" in absent.stderr
    (tmp_path / "text").write_text("no database" * 500)
    for command in (("check", "text"), ("backup", "text", "copy.db")):
        result = cli("db", command[0], *[str(tmp_path / name) for name in command[1:]])
        assert result.returncode == 1
        assert "is not a SQLite database" in result.stderr
    assert not (tmp_path / "copy.db").exists()
