#!/usr/bin/env bash
# Prepares an emulated ARM machine: tools/aarch64.sh DIR
#
# DIR/python then runs Debian's Python for arm64 with NumPy and ONNX Runtime, by qemu-user. Nothing of it touches the
# system: packages are only unpacked. Takes seconds and 250 MB, once; a DIR that is ready is left as it is.
# Needs Debian's apt-get and dpkg, qemu-user, and a Python with pip (PYTHON, default python3).
set -euo pipefail

dir=${1:?usage: tools/aarch64.sh DIR}
python=${PYTHON:-python3}
# ONNX Runtime from 1.24 on stops with a segmentation fault in qemu 7.2.
readonly WHEELS=(onnxruntime==1.23.2 numpy==2.3.5)

qemu=$(command -v qemu-aarch64 || command -v qemu-aarch64-static) || {
  echo "tools/aarch64.sh needs qemu-aarch64 (Debian: qemu-user)" >&2
  exit 1
}
mkdir -p "$dir"
dir=$(cd "$dir" && pwd)
ready="$dir/ready-${WHEELS[*]// /-}"
ready=${ready// /-}
if [[ -e $ready ]]; then
  exit 0
fi
rm -rf "${dir:?}"/*
mkdir -p "$dir"/apt/{etc,state/lists/partial,cache/archives/partial} "$dir/sysroot"
touch "$dir/apt/status"
# The system's own Debian sources, and no others: those may have nothing for arm64.
if [[ -e /etc/apt/sources.list.d/debian.sources ]]; then
  cp /etc/apt/sources.list.d/debian.sources "$dir/apt/etc/"
else
  cp /etc/apt/sources.list "$dir/apt/etc/debian.list"
fi
settings=(
  -q -o APT::Architecture=arm64 -o APT::Architectures=arm64 -o APT::Sandbox::User=
  -o "Dir::State=$dir/apt/state" -o "Dir::State::status=$dir/apt/status" -o "Dir::Cache=$dir/apt/cache"
  -o Dir::Etc::sourcelist=/dev/null -o "Dir::Etc::sourceparts=$dir/apt/etc"
)
apt-get "${settings[@]}" update
apt-get "${settings[@]}" install --no-install-recommends --download-only --yes \
  python3-minimal libpython3-stdlib libstdc++6
for package in "$dir"/apt/cache/archives/*.deb; do
  dpkg -x "$package" "$dir/sysroot"
done
version=$(basename "$(readlink "$dir/sysroot/usr/bin/python3")")
"$python" -m pip install --quiet --disable-pip-version-check --no-deps --only-binary=:all: \
  --platform manylinux_2_28_aarch64 --platform manylinux2014_aarch64 --implementation cp \
  --python-version "${version#python}" --target "$dir/sysroot/usr/lib/python3/dist-packages" "${WHEELS[@]}"
# Programs that it starts are given its own name again: without it they would be ARM programs, which need qemu too.
cat >"$dir/python" <<END
#!/bin/sh
export QEMU_CPU="\${QEMU_CPU:-cortex-a72}" PYTHONHOME="$dir/sysroot/usr" PYTHONDONTWRITEBYTECODE=1
exec "$qemu" -L "$dir/sysroot" -0 "$dir/python" \$QEMU_OPTIONS "$dir/sysroot/usr/bin/$version" "\$@"
END
chmod +x "$dir/python"
rm -rf "$dir/apt"
"$dir/python" -c 'import platform, numpy, onnxruntime; print(platform.machine(), "with onnxruntime", onnxruntime.__version__)'
touch "$ready"
