"""The building half of the library, with the names that versions 8.6, 10 and 11 have and lack."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any


class Base:
    """What the library's classes are to those derived from them: `__init__` has to be called."""

    def __init__(self) -> None:
        self.ready = True


class FakeConfig:
    def __init__(self) -> None:
        self.flags: set[str] = {"TF32"}
        self.pools: dict[str, int] = {}
        self.profiles: list[Any] = []
        self.timings = b""

    def set_flag(self, flag: str) -> None:
        self.flags.add(flag)

    def clear_flag(self, flag: str) -> None:
        self.flags.discard(flag)

    def set_memory_pool_limit(self, pool: str, size: int) -> None:
        self.pools[pool] = size

    def add_optimization_profile(self, profile: Any) -> None:
        self.profiles.append(profile)

    def set_calibration_profile(self, profile: Any) -> None:
        assert profile in self.profiles

    def create_timing_cache(self, blob: bytes) -> bytes:
        return blob or b"new"

    def set_timing_cache(self, cache: bytes, ignore_mismatch: bool) -> None:
        assert not ignore_mismatch
        self.timings = cache

    def get_timing_cache(self) -> SimpleNamespace:
        return SimpleNamespace(serialize=lambda: self.timings + b"+")


class FakeLibrary:
    """A library of `version`; `on_build` is called with the config while an engine is built."""

    __name__ = "tensorrt"
    IProgressMonitor: Any
    IInt8EntropyCalibrator2: Any

    class ILogger(Base):
        INTERNAL_ERROR, ERROR = "INTERNAL_ERROR", "ERROR"

    def __init__(
        self,
        version: str,
        *,
        shape: tuple[int, ...] = (-1, 3, 4),
        on_build: Callable[[FakeConfig], Any] = lambda config: None,
    ) -> None:
        self.__version__ = version
        major = int(version.split(".")[0])
        names = {8: ["EXPLICIT_BATCH"], 10: ["EXPLICIT_BATCH", "STRONGLY_TYPED"], 11: ["STRONGLY_TYPED"]}
        self.NetworkDefinitionCreationFlag = SimpleNamespace(
            **{name: i for i, name in enumerate(names[major])}
        )
        flags = ["TF32", "GPU_FALLBACK"] + (["FP16", "INT8"] if major < 11 else [])
        self.BuilderFlag = SimpleNamespace(**{name: name for name in flags})
        self.MemoryPoolType = SimpleNamespace(WORKSPACE="WORKSPACE")
        self.DeviceType = SimpleNamespace(DLA="DLA")
        if major < 11:
            self.IInt8EntropyCalibrator2 = type("IInt8EntropyCalibrator2", (Base,), {})
        if major > 8:
            self.IProgressMonitor = type("IProgressMonitor", (Base,), {})
        self.shape, self.on_build = shape, on_build
        self.network_bits: int | None = None
        self.configs: list[FakeConfig] = []
        self.plan: bytes | None = b"plan"

    def Builder(self, logger: Any) -> SimpleNamespace:
        assert logger.ready
        self.logger = logger

        def create_network(bits: int) -> SimpleNamespace:
            self.network_bits = bits
            tensor = SimpleNamespace(name="x", shape=self.shape)
            return SimpleNamespace(num_inputs=1, get_input=lambda i: tensor)

        def create_config() -> FakeConfig:
            self.configs.append(FakeConfig())
            return self.configs[-1]

        def create_profile() -> SimpleNamespace:
            profile = SimpleNamespace(shapes={})
            profile.set_shape = lambda name, *shapes: profile.shapes.update({name: shapes})
            return profile

        def build(network: Any, config: FakeConfig) -> bytes | None:
            self.on_build(config)
            if self.plan is None:
                logger.log("ERROR", "Error Code 2: OutOfMemory")
            return self.plan

        return SimpleNamespace(
            create_network=create_network,
            create_builder_config=create_config,
            create_optimization_profile=create_profile,
            build_serialized_network=build,
        )

    def OnnxParser(self, network: Any, logger: Any) -> SimpleNamespace:
        error = SimpleNamespace(desc=lambda: "No importer registered for op: NoSuch")
        return SimpleNamespace(
            parse=lambda content, path: b"NoSuch" not in content, num_errors=1, get_error=lambda i: error
        )
