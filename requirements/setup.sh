#!/usr/bin/env bash
# Make a virtual environment from a lock, with pip alone; nothing to do when it is there already.
#
#     requirements/setup.sh cpu    .venv       from requirements/cpu.lock
#     requirements/setup.sh cuda   .venv-cuda  from requirements/cuda.lock
#     requirements/setup.sh cluster            adds requirements/cluster.lock to .venv
#     requirements/setup.sh docs   .venv-docs  from requirements/docs.lock, to build the pages alone
#
# The stamp holds the hash of the lock and is written last: a set-up that was stopped runs again.
set -euo pipefail
cd "$(dirname "$0")/.."

kind=${1:?cpu, cuda, cluster or docs}
case $kind in
  cpu) venv=.venv need_gib=5 torch_index=https://download.pytorch.org/whl/cpu ;;
  cuda) venv=.venv-cuda need_gib=16 torch_index= ;;
  cluster) venv=.venv need_gib=1 torch_index= ;;
  docs) venv=.venv-docs need_gib=1 torch_index= ;;
  *) echo "setup: unknown environment '$kind'; use cpu, cuda, cluster or docs" >&2; exit 2 ;;
esac
lock=requirements/$kind.lock
stamp=$venv/rlaif-$kind.lock.sha256
python=${PYTHON:-python3.11}

fail() { echo "setup: $1" >&2; exit 2; }

hash=$(sha256sum "$lock" | cut -d' ' -f1)
if [ "$(cat "$stamp" 2>/dev/null)" = "$hash" ] && "$venv/bin/python" -c "" 2>/dev/null; then
  exit 0
fi

if [ "$kind" = docs ]; then
  "$venv/bin/python" -c "" 2>/dev/null || { rm -rf "$venv"; "$python" -m venv "$venv"; }
fi
if [ "$kind" = cluster ] || [ "$kind" = docs ]; then
  # Additions alone: no pin of cpu.lock moves.
  echo "setup: adding $(grep -c == "$lock") packages to $venv"
  "$venv/bin/python" -m pip install --disable-pip-version-check --no-deps --no-compile --quiet -r "$lock" 2> >(grep -v "is neither a file" >&2)
  echo "$hash" > "$stamp"
  exit 0
fi

"$python" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null ||
  fail "'$python' is not Python 3.11, which the lock is made for; install it, or name it: make setup PYTHON=/path/to/python3.11"
free_gib=$(df -Pk . | awk 'NR == 2 { print int($4 / 1048576) }')
[ -d "$venv/lib" ] || [ "$free_gib" -ge "$need_gib" ] ||
  fail "$free_gib GiB are free here, but the environment needs $need_gib; free some space"

rm -f "$stamp"
"$venv/bin/python" -c "" 2>/dev/null || { rm -rf "$venv"; "$python" -m venv "$venv"; }
# Python compiles what is used when it is first used; all of it would take a minute more.
pip=("$venv/bin/python" -m pip install --disable-pip-version-check --no-deps --no-compile)
total=$(grep -c '==' "$lock")
echo "setup: installing $total packages into $venv; minutes, most of them for torch and vLLM"

# One line for every 20 packages instead of pip's three for each.
brief() {
  awk -v total="$total" '
    /^(Collecting|Processing|Requirement already|Looking in links)/ {
      if (/^Looking/) next
      if (++found % 20 == 0) { print "setup: " found " of " total " packages found"; fflush() }
      next
    }
    /^Installing collected/ { print "setup: unpacking"; fflush(); next }
    /^ *ERROR|^WARNING: Retrying/ { print; fflush() }'
}

# Wherever this machine's own pip configuration finds the CPU build of torch is best.
torch=$(grep '^torch==' "$lock")
extra=()
if [ -n "$torch_index" ] && ! "${pip[@]}" --quiet "$torch" 2>/dev/null; then
  extra=(--extra-index-url "$torch_index")
fi
"${pip[@]}" ${extra[@]+"${extra[@]}"} -r "$lock" 2>&1 | brief
# A lock without setuptools would send pip to the network for it.
"${pip[@]}" --quiet --no-build-isolation --editable . 2> >(grep -v "is neither a file" >&2)
for absent in torchvision torchaudio torchcodec; do
  if [ "$kind" = cpu ] && "$venv/bin/python" -m pip show --quiet "$absent" 2>/dev/null; then
    fail "$absent is installed in $venv and its builds break vLLM on the CPU; remove $venv and run again"
  fi
done
echo "$hash" > "$stamp"
echo "setup: $venv is ready"
