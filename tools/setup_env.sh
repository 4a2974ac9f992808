#!/usr/bin/env bash
# Sets up the environment that mmfish is developed and tested in; `make env` calls it.
# A second call finds everything in place and returns at once.
#
#   LINE                  onedl, the maintained packages (default), or openmmlab, the ones that
#                         OpenMMLab itself published last, on the torch of their time
#   PYTHON                the interpreter to build on (default: a Python 3.10 to 3.12 from PATH)
#   VENV                  where the environment goes (default: .venv)
#   CUDA_VISIBLE_DEVICES  set, but empty: compile mmcv's ops for the CPU, even beside a GPU
#
# The compiled mmcv is kept under ~/.cache/mmfish (XDG_CACHE_HOME) for the next environment.
# A torch that is in $VENV already is kept if mmfish supports it. That is how to use one for
# another CUDA version than the default's: make $VENV, install torch and torchvision, call this.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

VENV=${VENV:-.venv}
LINE=${LINE:-onedl}
py=$VENV/bin/python
stamp=$VENV/mmfish-env
log=$VENV/mmcv-build.log
combined_log=$VENV/mmcv-build-combined.log
gb_needed=8

say() { printf '%s\n' "$*"; }
elapsed() { printf '%dm%02ds' $((SECONDS / 60)) $((SECONDS % 60)); }
step() { printf '\n[%s/6] %s  (%s)\n' "$1" "$2" "$(elapsed)"; }
fail() {
    printf '\nmake env: %s\n' "$*" >&2
    exit 1
}

case $LINE in
    onedl) mmcv=onedl-mmcv prefix='' pythons='python3 python3.12 python3.11 python3.10' ;;
    openmmlab) mmcv=mmcv prefix=openmmlab- pythons='python3.10 python3.11 python3 python3.12' ;;
    *) fail "LINE=$LINE is none of the lines of packages: set it to onedl or openmmlab." ;;
esac
torch_pins=requirements/${prefix}torch.txt
build_pins=requirements/${prefix}build.txt
line_pins=requirements/$LINE.txt

has_gpu() {
    [ -n "${CUDA_VISIBLE_DEVICES-all}" ] && nvidia-smi -L 2>/dev/null | grep -q '^GPU'
}

# What the environment depends on. The stamp holds it once everything has been checked.
fingerprint() {
    cat requirements/*.txt setup.py tools/setup_env.sh | cksum
    say "$LINE"
    pwd -P
    if has_gpu; then say cuda; else say cpu; fi
}

# check_stack <function of mmfish/stack.py>: prints what it complains about and fails.
check_stack() {
    "$py" -c "import runpy, sys; sys.exit(runpy.run_path('mmfish/stack.py')['$1']())"
}

if [ -x "$py" ] && [ -e mmfish/.mim/configs ] &&
    [ "$(cat "$stamp" 2>/dev/null)" = "$(fingerprint)" ] &&
    check_stack check_stack 2>/dev/null; then
    say "The environment in $VENV is up to date."
    exit 0
fi

step 1 'Looking at this machine'
supported='import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 12))'
if [ -e "$VENV" ]; then
    "$py" -c "$supported" 2>/dev/null ||
        fail \
            "$VENV is there, but has no working Python 3.10, 3.11 or 3.12: remove it and try" \
            "again."
    python=$py
elif [ -n "${PYTHON:-}" ]; then
    "$PYTHON" -c "$supported" 2>/dev/null ||
        fail "PYTHON=$PYTHON is not a working Python 3.10, 3.11 or 3.12: set it to one that is."
    python=$PYTHON
else
    for python in $pythons ''; do
        if [ -n "$python" ] && "$python" -c "$supported" 2>/dev/null; then break; fi
    done
    [ -n "$python" ] ||
        fail 'found no Python 3.10, 3.11 or 3.12: install one, or set PYTHON to it.'
fi
"$python" -c 'import sys; print("Python", sys.version.split()[0], "at", sys.executable)'

cxx=${CXX:-c++}
printf '#include <vector>\nint main() { return 0; }\n' |
    $cxx -std=c++17 -x c++ -fsyntax-only - 2>/dev/null ||
    fail \
        "mmcv's ops need a C++17 compiler and \`$cxx\` is none: install one (apt-get install" \
        "build-essential) or set CXX."
headers=$("$python" -c 'import sysconfig; print(sysconfig.get_path("include"))')
[ -f "$headers/Python.h" ] ||
    fail \
        "mmcv's ops need Python's C headers and $headers/Python.h is missing: install them" \
        "(apt-get install python3-dev) or set PYTHON to an interpreter that has them."
if has_gpu; then
    toolkit=${CUDA_HOME:-${CUDA_PATH:-/usr/local/cuda}}
    for nvcc in "$toolkit/bin/nvcc" "$(command -v nvcc || true)"; do
        if [ -x "$nvcc" ]; then break; fi
    done
    [ -x "$nvcc" ] ||
        fail \
            "this machine has an NVIDIA GPU but no nvcc to compile mmcv's ops for it: install" \
            "the CUDA toolkit or set CUDA_HOME to it, or \`export CUDA_VISIBLE_DEVICES=\`" \
            "to have them on the CPU only."
fi
if [ ! -d "$VENV" ]; then
    mkdir -p "$(dirname "$VENV")"
    free=$(df -Pk "$(dirname "$VENV")" | awk 'NR == 2 { print int($4 / 1048576) }')
    [ "$free" -ge "$gb_needed" ] ||
        fail \
            "$VENV needs about $gb_needed GB and $free GB are free there: make room, or set" \
            "VENV to a place that has it."
fi

step 2 "The environment in $VENV, and uv"
if ! uv=$(command -v uv) || ! "$uv" --version >/dev/null 2>&1; then uv=$VENV/bin/uv; fi
if [ ! -d "$VENV" ]; then
    if [ "$uv" != "$VENV/bin/uv" ]; then
        "$uv" venv --quiet --python "$python" "$VENV"
    else
        "$python" -m venv "$VENV" || {
            rm -rf "$VENV"
            fail \
                "$python cannot make an environment: install its venv module (apt-get install" \
                "python3-venv)."
        }
    fi
fi
if [ "$uv" = "$VENV/bin/uv" ] && [ ! -x "$uv" ]; then
    "$py" -m pip install --quiet uv || fail 'uv could not be installed; see the lines above.'
fi
"$uv" --version
install() {
    "$uv" pip install --python "$py" "$@" || fail 'an installation failed; the lines above say why.'
}

step 3 'torch and torchvision'
torch_version() {
    "$py" -c "import runpy; print(runpy.run_path('mmfish/stack.py')['version']('torch'))"
}
if [ -n "$(torch_version)" ]; then
    say "Keeping torch $(torch_version), which is in $VENV already."
    check_stack torch_problem || fail \
        "or remove $VENV and try again, for the torch of $torch_pins."
    release=$(torch_version)
    install torchvision "torch==${release%%+*}" # the registries leave out the +cu130
else
    install -r "$torch_pins"
fi
check_stack torchvision_problem || fail "or remove $VENV and try again."

step 4 'The OpenMMLab stack and the tools for development'
# All but mmcv, so that whatever can fail quickly fails before its ops are compiled.
install -r "$build_pins" -r requirements/dev.txt -r requirements/weights.txt \
    -r requirements/digits.txt -r requirements/convert.txt -r requirements/export.txt \
    $(grep -v -e "^$mmcv==" -e '^#' "$line_pins")
# Without the libraries of a desktop the GUI build of OpenCV does not load: the headless one,
# which mmdet brings along, puts its files in the same place.
if ! "$py" -c 'import cv2' 2>/dev/null; then
    version=$("$py" -c 'from importlib.metadata import version; print(version("opencv-python"))')
    install --reinstall-package opencv-python-headless "opencv-python-headless==$version"
    "$py" -c 'import cv2' || fail 'OpenCV does not load, for the reason above.'
fi

flavor=cpu
cuda=$("$py" -c 'import torch; print(torch.version.cuda or "")')
if has_gpu && [ -z "$cuda" ]; then
    say "The torch in $VENV is a build for the CPU, so mmcv's ops will be too, in spite of the GPU."
elif has_gpu; then
    release=$("$nvcc" --version | sed -n 's/.*release \([0-9.]*\).*/\1/p')
    [ "${release%%.*}" = "${cuda%%.*}" ] ||
        fail \
            "$nvcc is CUDA $release and torch $(torch_version) is built for CUDA $cuda: set" \
            "CUDA_HOME to a toolkit ${cuda%%.*}.x, or put a torch for CUDA $release into $VENV" \
            "first."
    flavor=cuda$cuda
    CUDA_HOME=$(dirname "$(dirname "$nvcc")")
    export CUDA_HOME FORCE_CUDA=1
fi
ops_work() {
    "$py" - "$flavor" <<'PY'
import sys

import torch  # noqa: F401, the ops link to it
from mmcv.ops import get_compiling_cuda_version, nms  # noqa: F401

if sys.argv[1] != 'cpu' and get_compiling_cuda_version() == 'not available':
    sys.exit('The ops of this mmcv are for the CPU only.')
PY
}
pin=$(grep "^$mmcv==" "$line_pins")

# pip, for mmcv against the torch in $VENV. ninja, which compiles in parallel, is looked for on PATH.
# The debug information (-g0) that Python's flags ask for would take half of the time and nearly all
# of the space. It is switched off by CPPFLAGS, which are added to Python's flags: with CFLAGS,
# recent versions of setuptools leave out all of these, -O3 too.
mmcv_pip() {
    PATH=$(cd "$VENV/bin" && pwd):$PATH MMCV_WITH_OPS=1 CPPFLAGS="${CPPFLAGS-} -g0" \
        "$py" -m pip "$@" --no-deps --no-build-isolation --no-cache-dir
}
# build <requirement or folder>: puts a wheel of mmcv into $part.
build() {
    mmcv_pip wheel -v --wheel-dir "$part" "$1"
}
# The same from a changed source distribution. As it comes, nearly all of the time goes into about
# 58 short files that parse torch's headers one by one; one file that includes them all parses the
# headers once. The files of pytorch/cpu define the same names, so they cannot be joined.
build_combined() {
    rm -rf "$source" &&
        mmcv_pip download --no-binary "$mmcv" --dest "$source" "$pin" &&
        tar -xzf "$source"/*.tar.gz -C "$source" --strip-components 1 &&
        mkdir "$source/mmcv/ops/csrc/single" &&
        mv "$source"/mmcv/ops/csrc/pytorch/*.cpp "$source/mmcv/ops/csrc/single" &&
        (cd "$source/mmcv/ops/csrc/single" && printf '#include "../single/%s"\n' *.cpp) \
            >"$source/mmcv/ops/csrc/pytorch/all.cpp" &&
        build "$source" &&
        "$py" -m zipfile -e "$part"/*.whl "$source/wheel" &&
        PYTHONPATH=$source/wheel ops_work
}
# Compiled ops serve one Python, one torch and one device. The caches of pip and uv tell none of
# these apart and forget a build when the registry's answer expires, hence a folder of our own.
python_tag=$("$py" -c 'import sys; print("py%d.%d" % sys.version_info[:2])')
wheels=${XDG_CACHE_HOME:-$HOME/.cache}/mmfish/$pin-$python_tag-torch$(torch_version)-$flavor
if ops_work 2>/dev/null; then
    step 5 'mmcv, with its ops: in place'
else
    if [ -d "$wheels" ]; then
        step 5 "mmcv, with its ops: compiled before, in $wheels"
    else
        step 5 "mmcv, compiling its ops for $flavor: usually about 2 minutes on 2 cores"
        say "CUDA takes longer. The compiler's output goes to $log."
        progress() {
            while sleep 30 >/dev/null 2>&1; do
                say "  $(elapsed) $(grep -o '\[[0-9]*/[0-9]*\]' "$log" | tail -n 1)"
            done
        }
        progress &
        part=$wheels.$$
        source=$VENV/mmcv-source
        trap 'kill '$!' 2>/dev/null; rm -rf "$part" "$source"' EXIT
        if ! build_combined >"$log" 2>&1; then
            mv "$log" "$combined_log"
            say "  $(elapsed) That failed; $combined_log has the reason. Compiling each of mmcv's" \
                "files on its own instead: about 10 minutes on 2 cores."
            build "$pin" >"$log" 2>&1 || {
                grep -E 'error:|Error:|error\[' "$log" | head -n 5 >&2 || true
                fail "mmcv could not be built; the whole story is in $log."
            }
        fi
        kill $!
        trap - EXIT
        rm -rf "$source"
        mv "$part" "$wheels"
    fi
    install --reinstall-package "$mmcv" "$wheels"/*.whl
    ops_work || {
        rm -rf "$wheels"
        fail \
            "mmcv was installed, but its ops do not load, for the reason above: try again, which" \
            "compiles them anew; if that does not help, look for errors in $log."
    }
fi

step 6 'mmfish itself, and a check of everything'
install --no-build-isolation --editable .
for module in mmcv.ops mmdet.models mmpretrain.models mmfish; do
    "$py" -W ignore -c "import $module" || fail "$module does not import, for the reason above."
    say "$module imports"
done
fingerprint >"$stamp"
say ''
say "Done in $(elapsed). Next: make demo, make test, or . $VENV/bin/activate"
