import re
from pathlib import Path

import pytest

README = Path(__file__).parent.parent / "README.md"


@pytest.mark.slow
def test_the_python_examples_run_as_printed(tmp_path, monkeypatch, capsys):
    examples = re.findall(r"```python\n(.*?)```", README.read_text(), flags=re.S)
    assert len(examples) == 4
    monkeypatch.chdir(tmp_path)
    scope: dict = {}
    for example in examples:
        exec(compile(example, str(README), "exec"), scope)
    assert scope["network"].architecture.image_size == 8
    printed = capsys.readouterr().out
    plain, hardened = map(float, re.findall(r"robust accuracy ([\d.]+)", printed))
    assert plain < 0.3
    assert hardened > 0.6
    assert (tmp_path / "runs" / "lenet" / "manifest.json").is_file()
