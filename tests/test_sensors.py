"""Power and temperature from the kernel's files, laid out as on a Jetson, and from NVML's answers."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from edge_fr.sensors import Sensor, open_cards, read_sensors


def lay(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    return root


def test_a_jetsons_zones_and_rails_are_read(tmp_path: Path) -> None:
    sys = lay(
        tmp_path,
        {
            "class/thermal/thermal_zone0/type": "cpu-thermal",
            "class/thermal/thermal_zone0/temp": "48531",
            "class/thermal/thermal_zone1/type": "cv0-thermal",
            "class/thermal/thermal_zone1/temp": "-256000",  # as Orin says of a part that is switched off
            "class/thermal/cooling_device0/type": "pwm-fan",
            "class/hwmon/hwmon0/name": "nvme",
            "class/hwmon/hwmon0/in1_label": "not a rail",
            "class/hwmon/hwmon0/in1_input": "5000",
            "class/hwmon/hwmon0/curr1_input": "1000",
            "class/hwmon/hwmon1/name": "ina3221",
            "class/hwmon/hwmon1/in1_label": "VDD_IN",
            "class/hwmon/hwmon1/in1_input": "5072",
            "class/hwmon/hwmon1/curr1_input": "1200",
            "class/hwmon/hwmon1/in2_label": "VDD_CPU_GPU_CV",
            "class/hwmon/hwmon1/in2_input": "5064",
            "class/hwmon/hwmon1/curr2_input": "250",
            "class/hwmon/hwmon1/in3_label": "VDD_SOC",  # its current cannot be read
            "class/hwmon/hwmon1/in3_input": "5064",
        },
    )
    assert read_sensors(sys) == [
        Sensor("cpu-thermal", "C", 48.531),
        Sensor("VDD_IN", "W", pytest.approx(6.0864)),
        Sensor("VDD_CPU_GPU_CV", "W", pytest.approx(1.266)),
    ]


def test_a_machine_without_sensors_has_none(tmp_path: Path) -> None:
    assert read_sensors(tmp_path) == []


def test_a_zone_that_cannot_be_read_is_left_out(tmp_path: Path) -> None:
    sys = lay(
        tmp_path,
        {
            "class/thermal/thermal_zone0/type": "gpu-thermal",
            "class/thermal/thermal_zone0/temp": "",
            "class/thermal/thermal_zone1/type": "tj-thermal",
            "class/thermal/thermal_zone1/temp": "51000",
        },
    )
    (sys / "class/thermal/thermal_zone2").mkdir()
    assert read_sensors(sys) == [Sensor("tj-thermal", "C", 51.0)]


def test_sensors_of_one_name_are_told_apart(tmp_path: Path) -> None:
    files = {f"class/hwmon/hwmon0/in{i}_label": "NC" for i in (1, 2)}
    files |= {f"class/hwmon/hwmon0/{what}{i}_input": "1000" for i in (1, 2) for what in ("in", "curr")}
    files |= {"class/hwmon/hwmon0/name": "ina3221"}
    files |= {"class/thermal/thermal_zone0/type": "NC", "class/thermal/thermal_zone0/temp": "1000"}
    assert read_sensors(lay(tmp_path, files)) == [
        Sensor("NC", "C", 1.0),
        Sensor("NC", "W", 1.0),
        Sensor("NC-2", "W", 1.0),
    ]


class NvmlError(Exception):
    pass


class Nvml:
    """Answers as pynvml does: milliwatts and degrees by card, an exception for what a card lacks."""

    NVMLError = NvmlError
    NVML_TEMPERATURE_GPU = 0

    def __init__(self, *cards: tuple[int | None, int | None], driver: bool = True) -> None:
        self._cards, self._driver = cards, driver

    def nvmlInit(self) -> None:
        if not self._driver:
            raise NvmlError("Driver Not Loaded")

    def nvmlDeviceGetCount(self) -> int:
        return len(self._cards)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> Any:
        return SimpleNamespace(answers=self._cards[index])

    def nvmlDeviceGetPowerUsage(self, card: Any) -> int:
        return self._told(card.answers[0])

    def nvmlDeviceGetTemperature(self, card: Any, which: int) -> int:
        assert which == self.NVML_TEMPERATURE_GPU
        return self._told(card.answers[1])

    def _told(self, answer: int | None) -> int:
        if answer is None:
            raise NvmlError("Not Supported")
        return answer


def test_cards_tell_their_power_and_temperature_as_far_as_they_can() -> None:
    read = open_cards(Nvml((71_340, 43), (None, 50)))
    assert read is not None
    assert read() == [Sensor("card0", "W", 71.34), Sensor("card0", "C", 43.0), Sensor("card1", "C", 50.0)]


@pytest.mark.parametrize("nvml", [Nvml(driver=False), Nvml()])
def test_without_a_driver_or_a_card_there_is_nothing_to_read(nvml: Nvml) -> None:
    assert open_cards(nvml) is None


def test_the_library_answers_by_the_names_that_are_asked() -> None:
    pynvml = pytest.importorskip("pynvml", reason="nvidia-ml-py is not installed")
    for name in vars(Nvml):
        if name.lower().startswith("nvml"):
            assert hasattr(pynvml, name), name
