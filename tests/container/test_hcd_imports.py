import subprocess
import sys


def test_container_imports_neither_torch_nor_soundfile():
    code = (
        "import sys, codectool.container\n"
        "print(sorted({'torch', 'torchaudio', 'soundfile', 'click'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "[]"
