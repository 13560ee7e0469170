#!/usr/bin/env bash
# Builds the Debian package of this checkout into dist/. It works in a copy of the sources: debhelper writes beside
# debian/, dpkg-buildpackage into the folder above, and neither has business in a checkout.
set -euo pipefail
cd "$(dirname "$0")/.."

for program in dpkg-buildpackage dh; do
    command -v "$program" > /dev/null || {
        echo "make deb: $program is not installed: apt install debhelper dpkg-dev python3-dev python3-venv" >&2
        exit 2
    }
done

version=$(sed -n 's/^__version__ = "\(.*\)"$/\1/p' llmpower/__init__.py)
# dpkg sorts 1.2~rc1 before 1.2, as Python sorts 1.2rc1.
version=$(sed -E 's/\.?(a|b|rc|dev)([0-9]+)/~\1\2/g' <<< "$version")-${DEB_REVISION:-1}
stage=build/deb/llmpower-$version
rm -rf build/deb
mkdir -p "$stage" dist
cp -rL csrc debian docs grafana llmpower prometheus systemd "$stage"
cp constraints.txt CHANGELOG.md LICENSE README.md pyproject.toml setup.py "$stage"
find "$stage" \( -name '*.so' -o -name '*.so.*' -o -name __pycache__ \) -prune -exec rm -rf {} +
# The notable changes are in CHANGELOG.md, which is in the package; dpkg wants a version and a date.
date=$(date -R -u -d "@${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2> /dev/null || date +%s)}")
cat > "$stage/debian/changelog" << END
llmpower ($version) unstable; urgency=medium

  * See /usr/share/doc/llmpower/changelog.gz.

 -- $(sed -n 's/^Maintainer: //p' debian/control)  $date
END
(cd "$stage" && dpkg-buildpackage --build=binary --no-sign)
mv build/deb/llmpower_*.deb dist/
ls dist/llmpower_"$version"_*.deb
