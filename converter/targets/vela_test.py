"""Vela's decisions in our report; Vela itself where it is installed."""

from pathlib import Path

import numpy as np
import pytest

from converter.targets import get_target, vela
from converter.targets.rules import CheckReport, Verdict
from converter.tflite.model_file import load

PAIRS = Path(__file__).parents[3] / "shared" / "models" / "edgetpu"


def test_vela_decides():
    verdicts = tuple(
        Verdict(
            index=i,
            name=name,
            layer=f"layer{i}",
            mapped=mapped,
            status="Ethos-U" if mapped else "CPU",
            reason="",
            fix="",
        )
        for i, (name, mapped) in enumerate([("CONV_2D", True), ("PACK", True), ("SQRT", False)])
    )
    report = CheckReport(target="ethos-u55", verdicts=verdicts)
    found = vela.decide(
        report,
        vela.VelaReport(
            accelerator="ethos-u55-256", on_cpu=(("PACK", "layer1"),), reasons={"layer1": "Unsupported dataType Int32"},
            cycles=10, macs=5, inference_ms=1.5, memory_bytes={"sram": 2048, "dram": 0},
        ),
    )  # fmt: skip
    assert [v.mapped for v in found.verdicts] == [True, False, True]
    assert found.verdicts[1].reason == "Unsupported dataType Int32" and not found.predicted
    assert found.notes == ("Vela for ethos-u55-256: 10 cycles, 1.500 ms, sram 2.0 KiB",)


@pytest.mark.skipif(vela.installed() is None, reason="Vela is not installed (the extra requirement 'vela')")
@pytest.mark.parametrize(("target", "accelerator"), sorted(vela.ACCELERATORS.items()))
def test_vela_takes_what_we_convert(tmp_path, target, accelerator):
    import keras

    from converter.conversion import convert

    keras.utils.set_random_seed(0)
    layers = [
        keras.layers.Conv2D(8, 3, activation="relu"),
        keras.layers.GlobalAveragePooling2D(),
        keras.layers.Dense(4),
    ]
    model = keras.Sequential([keras.Input((16, 16, 3), batch_size=1), *layers])
    x = np.random.default_rng(0).normal(size=(4, 16, 16, 3)).astype(np.float32)
    path = tmp_path / "m.tflite"
    convert(model, target=target, calibration_data=[x], check=False, output=path)
    report = vela.run_vela(path, accelerator)
    assert report.on_cpu == () and report.cycles > 0 and report.memory_bytes["sram"] > 0


@pytest.mark.skipif(vela.installed() is None, reason="Vela is not installed (the extra requirement 'vela')")
@pytest.mark.skipif(not PAIRS.exists(), reason="the public models are not in this checkout (../shared/models/edgetpu)")
def test_operators_on_the_cpu_and_their_reasons():
    path = PAIRS / "test_data__movenet_single_pose_lightning_ptq.tflite"
    report = vela.decide(get_target("ethos-u55").check(load(path), None), vela.run_vela(path, "ethos-u55-128"))
    by_layer = {v.layer: v for v in report.verdicts}
    assert not by_layer["stack"].mapped and "Int32" in by_layer["stack"].reason
    assert by_layer["Sigmoid"].mapped
    assert len(report.unmapped) == 29


@pytest.mark.skipif(vela.installed() is None, reason="Vela is not installed (the extra requirement 'vela')")
@pytest.mark.skipif(not PAIRS.exists(), reason="the public models are not in this checkout (../shared/models/edgetpu)")
@pytest.mark.parametrize("target", ["ethos-u55", "ethos-u85"])
@pytest.mark.parametrize(
    "name", ["movenet_single_pose_lightning_ptq", "deeplabv3_mnv2_dm05_pascal_quant", "keras_lstm_mnist_ptq"]
)
def test_prediction_is_what_vela_decides(target, name):
    path = PAIRS / f"test_data__{name}.tflite"
    predicted = get_target(target).check(load(path), None)
    decided = vela.decide(predicted, vela.run_vela(path, vela.ACCELERATORS[target]))
    pairs = zip(predicted.verdicts, decided.verdicts, strict=True)
    assert [(p.name, p.layer) for p, d in pairs if p.mapped != d.mapped] == []
