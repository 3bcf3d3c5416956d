import re
from pathlib import Path

import pytest

README = Path(__file__).parent.parent / "README.md"


@pytest.mark.slow
def test_the_python_examples_run_as_printed(tmp_path, monkeypatch, capsys):
    examples = re.findall(r"```python\n(.*?)```", README.read_text(), flags=re.S)
    assert len(examples) == 2
    monkeypatch.chdir(tmp_path)
    scope: dict = {}
    for example in examples:
        exec(compile(example, str(README), "exec"), scope)
    printed = capsys.readouterr().out
    accuracy = float(re.search(r"robust accuracy ([\d.]+)", printed).group(1))
    assert 0.6 < accuracy < 0.95
    assert (tmp_path / "runs" / "lenet" / "manifest.json").is_file()
