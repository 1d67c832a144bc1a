#!/bin/sh
# Install codectool without PyTorch into a new environment, and encode and decode there.
#
#     tests/without_torch.sh [WHEEL]      the checkout by default; needs a package index
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
package=${1:-$root}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
bin=$work/venv/bin
unset PYTHONPATH
# The command of docs/guides/without-pytorch.md, which a test keeps complete.
packages=$(sed -n 's/^    pip install \(numpy .*\) &&.*$/\1/p' "$root/docs/guides/without-pytorch.md")
"$bin/pip" install --quiet $packages
"$bin/pip" install --quiet --no-deps "$package"
cd "$work"
export CODECTOOL_HOME="$work/home"
if "$bin/python" -c "import torch" 2>/dev/null; then
    echo "PyTorch is installed"
    exit 1
fi
"$bin/codectool" doctor > doctor.txt || { cat doctor.txt; exit 1; }
grep "ONNX Runtime" doctor.txt
speech=$root/assets/speech_espeak.flac
"$bin/codectool" encode "$speech" speech.hcd
"$bin/codectool" info speech.hcd
"$bin/codectool" verify speech.hcd
"$bin/codectool" decode speech.hcd speech.wav
"$bin/codectool" encode - - --live < "$speech" | "$bin/codectool" decode - - > live.wav
mkdir in && cp "$root"/assets/*.flac in
"$bin/codectool" encode in tokens --json
"$bin/codectool" decode tokens audio --json
test "$(ls audio | wc -l)" = "$(ls in | wc -l)"
cmp tokens/speech_espeak.hcd speech.hcd
du -sm "$work/venv" | sed 's/\t.*/ MB with Python packages/'
echo "encoded and decoded without PyTorch"
