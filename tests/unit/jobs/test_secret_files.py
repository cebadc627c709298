"""Files of secrets, and who may read them."""

import pytest

from podium.jobs.secret_files import open_to_others


@pytest.mark.parametrize(
    ("mode", "told"),
    [(0o600, 0), (0o400, 0), (0o640, 0), (0o440, 0), (0o644, 1), (0o604, 1), (0o660, 1), (0o602, 1), (0o777, 1)],
)
def test_others_may_do_nothing_with_a_secret_and_a_group_at_most_read_it_as_kubernetes_mounts_it(mode, told, tmp_path):
    file = tmp_path / "secret"
    file.touch()
    file.chmod(mode)

    found = list(open_to_others({"PODIUM_TLS_KEY": file}))

    assert told == len(found)
    assert all("PODIUM_TLS_KEY" in sentence and f"chmod 600 {file}" in sentence for sentence in found)


def test_a_link_is_judged_by_what_it_leads_to_as_kubernetes_mounts_secrets_by_links(tmp_path):
    (tmp_path / "secret").touch(0o600)
    (tmp_path / "link").symlink_to("secret")

    assert [] == list(open_to_others({"PODIUM_TLS_KEY": str(tmp_path / "link")}))


def test_what_is_not_named_or_not_there_is_left_to_who_reads_it(tmp_path):
    assert [] == list(open_to_others({"A": None, "B": "", "C": tmp_path / "none"}))
