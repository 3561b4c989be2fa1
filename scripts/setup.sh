# Sourced by scripts/up, test and check, never run: goes to the checkout's root and makes .venv what requirements.lock
# says. Needs Python 3.11 or newer with venv, or uv; no root, no service. Does nothing when nothing has changed.

set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

say() { printf '%s\n' "$*" >&2; }

# The newest Python that the lock serves; a name on PATH may be a shim of a version that is not there.
find_python() {
  local name
  for name in "${PYTHON:-}" python3.14 python3.13 python3.12 python3.11 python3 python; do
    if [ -n "$name" ] && "$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then
      command -v "$name"
      return
    fi
  done
}

make_venv() {
  local python
  python="$(find_python)"
  rm -rf .venv
  if command -v uv >/dev/null; then
    # Without any Python of our own uv brings one.
    uv venv --quiet --python "${python:-3.13}" .venv
  elif [ -z "$python" ]; then
    say "Python 3.11 or newer is needed and none was found (python3 is: $(python3 --version 2>&1 || true))."
    say "Install one (Debian 12 or Ubuntu: apt install python3 python3-venv; macOS: brew install python), or uv."
    return 1
  elif ! "$python" -c 'import venv, ensurepip' >/dev/null 2>&1; then
    say "$python cannot make virtual environments: its venv module is missing."
    say "Debian or Ubuntu: apt install python3-venv. Or install uv, which needs nothing else."
    return 1
  else
    "$python" -m venv .venv
  fi
}

install_locked() {
  say "installing what requirements.lock names into .venv (once, and after it has changed)"
  if command -v uv >/dev/null; then
    uv pip install --python .venv/bin/python --require-hashes --no-deps -r requirements.lock
    uv pip install --python .venv/bin/python --no-deps --no-build-isolation -e .
  else
    .venv/bin/python -m pip install --require-hashes --no-deps -r requirements.lock
    .venv/bin/python -m pip install --quiet --no-deps --no-build-isolation -e .
  fi
}

# The place belongs to the stamp: a moved checkout has a .venv that points to where it was.
stamp="$({ pwd && cat requirements.lock pyproject.toml; } | cksum)"
if [ "$(cat .venv/.installed 2>/dev/null || true)" != "$stamp" ] || ! .venv/bin/python -c '' 2>/dev/null; then
  .venv/bin/python -c 'import sys; sys.exit(sys.prefix != sys.argv[1])' "$(pwd -P)/.venv" 2>/dev/null || make_venv
  install_locked
  printf '%s\n' "$stamp" >.venv/.installed
fi
