import re

from manyface.observe.provenance import commit, processor, read_commit, versions

MAIN, OTHER = "a" * 40, "b" * 40


def test_versions_commit_and_processor():
    assert versions().keys() == {"manyface", "python", "torch", "numpy"}
    found = commit()
    assert found is None or re.fullmatch(r"[0-9a-f]{40}", found)
    assert processor()


def test_commit_of_a_branch_of_a_packed_one_and_of_none(tmp_path):
    (tmp_path / "HEAD").write_text("ref: refs/heads/main\n")
    (tmp_path / "packed-refs").write_text(f"# pack-refs\n{MAIN} refs/heads/main\n")
    assert read_commit(tmp_path) == MAIN
    (tmp_path / "refs/heads").mkdir(parents=True)
    (tmp_path / "refs/heads/main").write_text(OTHER + "\n")
    assert read_commit(tmp_path) == OTHER
    (tmp_path / "HEAD").write_text("ref: refs/heads/absent\n")
    assert read_commit(tmp_path) is None
    (tmp_path / "HEAD").write_text(MAIN + "\n")
    assert read_commit(tmp_path) == MAIN


def test_commit_of_a_further_worktree(tmp_path):
    git, place = tmp_path / "git", tmp_path / "git/worktrees/other"
    place.mkdir(parents=True)
    (git / "packed-refs").write_text(f"{MAIN} refs/heads/other\n")
    (place / "HEAD").write_text("ref: refs/heads/other\n")
    (place / "commondir").write_text("../..\n")
    (tmp_path / ".git").write_text(f"gitdir: {place}\n")
    assert read_commit(tmp_path / ".git") == MAIN
