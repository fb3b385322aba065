"""The diagnosis agrees with the machine, and names what to install where something is missing."""

import platform
import subprocess

from tome_export.doctor import cpu_features, diagnose
from tome_export.quiet import quiet


def test_this_machine():
    import numpy
    import onnxruntime
    import openvino
    import paddle

    with quiet():
        checks = {(check.group, check.name): check for check in diagnose()}
    assert checks["system", "python"].value == platform.python_version()
    assert checks["package", "numpy"].value == numpy.__version__
    assert checks["package", "paddle"].value.startswith(paddle.__version__)
    assert checks["runtime", "onnx"].ok and onnxruntime.__version__ in checks["runtime", "onnx"].value
    assert checks["runtime", "openvino"].ok
    assert openvino.__version__.startswith(checks["runtime", "openvino"].value.split()[0])
    assert checks["runtime", "paddle"].ok and checks["gpu", "paddle"].value.split()[0].isdigit()
    assert all(bool(check.advice) == (check.ok is False) for check in checks.values())


def test_an_environment_without_engines(bare_child):
    done = bare_child("""
from tome_export.doctor import diagnose
for check in diagnose():
    print(check.group, check.name, check.ok, check.value, check.advice, sep="|")
""")
    assert done.returncode == 0, done.stderr
    lines = dict(
        ((group, name), (ok, value, advice))
        for group, name, ok, value, advice in (line.split("|") for line in done.stdout.splitlines())
    )
    assert lines["package", "numpy"][0] == "True"
    extras = {"paddle": "cpu", "paddle2onnx": "cpu", "onnx": "cpu", "onnxruntime": "onnx"}
    for name, extra in (extras | {"openvino": "openvino", "tensorrt": "tensorrt"}).items():
        ok, value, advice = lines["package", name]
        assert (ok, value) == ("False", "not installed")
        assert advice.endswith(f'pip install "tome-export[{extra}]"')
    for name in ("paddle", "onnx", "openvino", "tensorrt", "onnx-tensorrt"):
        ok, value, advice = lines["runtime", name]
        assert (ok, value) == ("False", "not usable") and "pip install" in advice
    assert not any(group == "gpu" for group, _ in lines)


def test_cpu_features():
    x86 = "processor\t: 0\nflags\t\t: fpu sse2 avx2 avx512f avx512_bf16 amx_bf16\nbugs\t: none\n"
    arm = "processor\t: 0\nFeatures\t: fp asimd asimddp bf16 i8mm\n"
    assert cpu_features(x86) == ("avx2", "avx512", "avx512_bf16", "amx_bf16")
    assert cpu_features(arm) == ("neon", "dotprod", "bf16", "i8mm")
    assert cpu_features("") == cpu_features("flags: nothing known\n") == ()


def test_cpu_features_agree_with_lscpu():
    text = subprocess.run(["lscpu"], capture_output=True, text=True).stdout
    with open("/proc/cpuinfo") as file:
        features = cpu_features(file.read())
    assert ("avx2" in features) == (" avx2 " in text) and ("avx512" in features) == (" avx512f " in text)
