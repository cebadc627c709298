from podium.client.demo._run import again


def test_the_command_to_go_on_with_names_the_images_where_a_stack_would_not_look(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    kept = tmp_path / "here/.demo"
    command = "podium up --local --data-dir .demo/podium"

    for data in (kept / "glyphs", tmp_path / "home/photos"):
        assert command == again(kept, data)
    assert f"{command} --data-root {tmp_path}/photos" == again(kept, tmp_path / "photos")
