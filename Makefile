# `make demo` shows what the project does, `make test` checks it. Each sets up what it needs, once.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.ONESHELL:
.NOTPARALLEL:
MAKEFLAGS += --no-builtin-rules

PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
PIP_INSTALL := $(PY) -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

# GStreamer reads cameras, ffmpeg writes videos that browsers play. The RTSP server is for the tests, the headers for
# PyGObject, which is built here.
MEDIA := ffmpeg gstreamer1.0-tools gstreamer1.0-plugins-base gstreamer1.0-plugins-good gstreamer1.0-plugins-bad \
	gstreamer1.0-plugins-ugly gstreamer1.0-libav gstreamer1.0-rtsp gir1.2-gstreamer-1.0 \
	gir1.2-gst-plugins-base-1.0 gir1.2-gst-rtsp-server-1.0
HEADERS := gcc libc6-dev pkg-config libgirepository1.0-dev libcairo2-dev

# A shell function: brings in the Debian packages that are missing, or fails with the reason in $reason.
define apt
apt_install() {
	local missing=() package as_root=() log=/dev/null
	for package; do
		dpkg-query --show --showformat='$${db:Status-Abbrev}' "$$package" 2>$$log | grep -q ^ii || missing+=("$$package")
	done
	[ $${#missing[@]} -gt 0 ] || return 0
	command -v apt-get >$$log || { reason="this system has no apt-get"; return 1; }
	if [ "$$(id -u)" != 0 ]; then
		sudo -n true 2>$$log || { reason="no root and no sudo without a password"; return 1; }
		as_root=(sudo -n)
	fi
	echo "installing $${missing[*]}"
	log=$$(mktemp)
	as_root+=(env DEBIAN_FRONTEND=noninteractive apt-get --quiet --yes)
	if ! { "$${as_root[@]}" update && "$${as_root[@]}" install --no-install-recommends "$${missing[@]}"; } >"$$log" 2>&1; then
		reason="apt-get said: $$(grep -m 1 -E '^(W: Failed|E:)' "$$log" || tail -n 1 "$$log")"
		rm "$$log"
		return 1
	fi
	rm "$$log"
}
endef

.PHONY: help demo test bench lint models clean
help:
	@echo "make demo                run the demo; results in out/demo/"
	echo "make demo SOURCE=video   the same with your picture, folder, video file, camera or rtsp:// address"
	echo "make test                lint, types, import rules and tests"
	echo "make bench VIDEO=video   timings of this machine, and against a plain OpenCV loop"
	echo "make clean               remove results and caches (the environment is $(VENV)/)"

demo: $(VENV)/.streams
	@$(VENV)/bin/edge-fr models pull yunet
	$(PY) samples/demo.py $(if $(value SOURCE),'$(subst ','\'',$(value SOURCE))')

test: lint $(VENV)/.streams $(VENV)/.broker models
	$(PY) -m pytest -ra

lint: $(VENV)/.workstation
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	if $(PY) -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
		$(PY) -m mypy
	else
		echo "skipped mypy: the types are checked against a numpy that needs Python 3.11"
	fi
	$(VENV)/bin/lint-imports --no-logo

bench: $(VENV)/.streams models
	@$(PY) -m tests.bench.import_time
	$(PY) -m tests.bench.gallery --templates 1000 100000
	$(VENV)/bin/edge-fr bench '$(or $(value VIDEO),test://?frames=100)'
	$(if $(value VIDEO),$(PY) -m tests.bench.peer '$(value VIDEO)')

models: $(VENV)/.packages
	@$(VENV)/bin/edge-fr models pull

clean:
	rm -rf out build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +

$(PY):
	@$(apt)
	command -v $(PYTHON) >/dev/null || apt_install python3 || { echo "no $(PYTHON) here ($$reason); install Python 3.10 or later"; exit 1; }
	version=$$($(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])')
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' ||
		{ echo "$(PYTHON) is Python $$version, 3.10 or later is needed: make PYTHON=python3.11"; exit 1; }
	$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || apt_install "python$$version-venv" ||
		{ echo "$(PYTHON) cannot make an environment ($$reason): apt-get install python$$version-venv"; exit 1; }
	# On a Jetson, TensorRT comes as a package of the system.
	$(PYTHON) -m venv --clear $(if $(wildcard /etc/nv_tegra_release),--system-site-packages) $(VENV)

$(VENV)/.packages: pyproject.toml constraints.txt | $(PY)
	@echo "installing Python packages into $(VENV)/"
	$(PIP_INSTALL) --editable '.[cpu,dev]'
	touch $@

# Training and calibration; torch is most of the download, and the demo does without.
$(VENV)/.workstation: $(VENV)/.packages
	@echo "installing torch into $(VENV)/"
	$(PIP_INSTALL) --editable '.[export,calibration]'
	touch $@

# Skipping leaves no stamp: the next run looks again.
$(VENV)/.streams: $(VENV)/.packages
	@$(apt)
	skip() { echo "skipped GStreamer and ffmpeg: $$1; OpenCV reads and writes the videos"; exit 0; }
	version=$$($(PY) -c 'import sys; print("%d.%d" % sys.version_info[:2])')
	python_h=$$($(PY) -c 'import sysconfig; print(sysconfig.get_path("include"))')/Python.h
	[ -e "$$python_h" ] || headers=python$$version-dev
	apt_install $(MEDIA) $(HEADERS) $${headers:-} || skip "$$reason"
	$(PIP_INSTALL) --editable '.[streams]' || skip "PyGObject could not be installed, see above"
	touch $@

# For the tests alone: the package brings a broker that listens on this machine's own address.
$(VENV)/.broker: | $(PY)
	@$(apt)
	apt_install mosquitto || { echo "skipped the MQTT broker ($$reason); so are the tests that need it"; exit 0; }
	touch $@
