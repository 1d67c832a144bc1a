import subprocess
import sys


def test_the_container_needs_no_torch():
    code = (
        "import sys, codectool.container\n"
        "print(sorted({'torch', 'torchaudio', 'soundfile', 'click'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "[]"
