"""Power and temperature of the machine, where it tells them.

From the kernel's files, where tegrastats has its figures too: thermal zones, and on a Jetson the INA3221
power monitors, whose channels are named after their rails (VDD_IN is the whole module). A desktop card
tells them through NVML. Neither needs a process that has to be kept alive.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal, NamedTuple

_MAX_CELSIUS = 200.0  # zones that are switched off say what no chip survives


class Sensor(NamedTuple):
    """One reading: watts, or degrees Celsius."""

    name: str
    unit: Literal["W", "C"]
    value: float


def read_sensors(sys: Path = Path("/sys")) -> list[Sensor]:
    """What the kernel tells now, under different names; a sensor that gives no number, as of a part that
    sleeps, is left out."""
    counts: Counter[tuple[str, str]] = Counter()
    found = []
    for sensor in (*_zones(sys), *_rails(sys)):  # several may have one name, such as NC: not connected
        counts[sensor.name, sensor.unit] += 1
        number = counts[sensor.name, sensor.unit]
        found.append(sensor if number == 1 else sensor._replace(name=f"{sensor.name}-{number}"))
    return found


def open_cards(nvml: Any = None) -> Callable[[], list[Sensor]] | None:
    """What reads the desktop cards; None where there is no NVML, no driver behind it, or no card.

    `nvml` is the module `pynvml` (None: the installed one, if there is one).
    """
    if nvml is None:
        try:
            import pynvml
        except ImportError:
            return None
        nvml = pynvml
    try:
        nvml.nvmlInit()
        cards = [nvml.nvmlDeviceGetHandleByIndex(i) for i in range(nvml.nvmlDeviceGetCount())]
    except nvml.NVMLError:
        return None

    def watts(card: Any) -> float:
        return float(nvml.nvmlDeviceGetPowerUsage(card)) / 1000

    def celsius(card: Any) -> float:
        return float(nvml.nvmlDeviceGetTemperature(card, nvml.NVML_TEMPERATURE_GPU))

    def read() -> list[Sensor]:
        found = []
        for i, card in enumerate(cards):
            with suppress(nvml.NVMLError):  # a card without that sensor
                found.append(Sensor(f"card{i}", "W", watts(card)))
            with suppress(nvml.NVMLError):
                found.append(Sensor(f"card{i}", "C", celsius(card)))
        return found

    return read if cards else None


def _zones(sys: Path) -> Iterator[Sensor]:
    for zone in sorted(sys.glob("class/thermal/thermal_zone*")):
        milli = _number(zone / "temp")
        name = _text(zone / "type")
        if milli is not None and name and -_MAX_CELSIUS < milli / 1e3 < _MAX_CELSIUS:
            yield Sensor(name, "C", milli / 1e3)


def _rails(sys: Path) -> Iterator[Sensor]:
    for monitor in sorted(sys.glob("class/hwmon/hwmon*")):
        if _text(monitor / "name") != "ina3221":
            continue
        for channel in (1, 2, 3):
            name = _text(monitor / f"in{channel}_label")
            millivolt = _number(monitor / f"in{channel}_input")
            milliampere = _number(monitor / f"curr{channel}_input")
            if name and millivolt is not None and milliampere is not None:
                yield Sensor(name, "W", millivolt * milliampere / 1e6)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:  # not there, or the part behind it sleeps
        return ""


def _number(path: Path) -> float | None:
    try:
        return float(_text(path))
    except ValueError:
        return None
