"""The flags of `convert`."""

from __future__ import annotations

from absl import flags

from converter import preprocess
from converter.compressing import MEANS
from converter.mixed.budget import SENSITIVITIES
from converter.targets import TARGETS
from passes.quantization.lower import IO_TYPES
from passes.running import pipeline as pipelines
from tools._command import SEEDS


def define_flags() -> None:
    """The flags, in the order in which --help lists them."""
    flags.DEFINE_string(
        "model",
        None,
        "The network; also the first argument: convert FILE.",
    )
    flags.DEFINE_integer("batch_size", None, "Axis 0 of every input; 1 where the model leaves it open.", lower_bound=1)
    flags.DEFINE_multi_string("input_shape", [], "name=1,224,224,3: sizes that the model leaves open.")
    flags.DEFINE_string("signature", None, "Which entry point of a SavedModel or .tflite file.")
    flags.DEFINE_list("input_arrays", [], "Of a frozen .pb: the tensors to begin at.")
    flags.DEFINE_list("output_arrays", [], "Of a frozen .pb: the tensors to end at.")
    flags.DEFINE_list("output_nodes", [], "Layers or tensors to end at; what comes after them is cut off.")
    flags.DEFINE_bool(
        "split_outputs", False, "Makes an output of each part that an output is joined of (boxes, scores)."
    )
    flags.DEFINE_bool(
        "allow_float_fallback", False, "Keeps operators that have no integer form in float, instead of failing."
    )
    flags.DEFINE_string(
        "weights",
        None,
        "For a name of the zoo: 'imagenet' (the default; downloaded by Keras, or from its cache), a file of weights, or 'random'.",
    )
    flags.DEFINE_enum("target", "cpu", list(TARGETS), "Where the file will run.")
    flags.DEFINE_string(
        "min_runtime_version",
        None,
        "The oldest runtime that must run the file: of the Edge TPU 10 to 14, on a CPU 2.14 (tflite-runtime's last).",
    )
    flags.DEFINE_string(
        "calibration_data", None, "A folder of images (of folders: their classes), an .npy or .npz, or a TFRecord."
    )
    flags.DEFINE_integer(
        "calibration_samples", 100, "Samples to calibrate on, evenly spaced over the data.", lower_bound=1
    )
    flags.DEFINE_enum("preprocess", None, list(preprocess.MODES), "Of images; known for models of the zoo.")
    flags.DEFINE_string("test_data", None, "Samples to judge the file on; by default the calibration data.")
    flags.DEFINE_string("labels", None, "A CSV of file and label of the samples that the file is judged on.")
    flags.DEFINE_float(
        "min_agreement",
        None,
        "A gate: nothing is written, and the exit status is 1, where the file and the float network have the same top-1 "
        "answer on fewer of the samples, in per cent (97.5) or as a share (0.975).",
    )
    flags.DEFINE_float("max_accuracy_drop", None, "A gate: the most points of top-1 accuracy that may be lost.")
    flags.DEFINE_bool("require_fully_mapped", False, "A gate: every operator is predicted to run on the target.")
    flags.DEFINE_string(
        "output",
        None,
        "Where to write the file; by default the model's name with .tflite, here (_int8.tflite for a .tflite).",
    )
    flags.DEFINE_string(
        "c_array", None, "Also writes the file as an array in C: FILE.c or FILE.cc, and FILE.h beside it."
    )
    flags.DEFINE_enum(
        "granularity", None, ["per_channel", "per_tensor"], "Scales of weights; by default the target's choice."
    )
    flags.DEFINE_enum("io", "int8", list(IO_TYPES), "Type of the file's inputs and outputs.")
    flags.DEFINE_integer(
        "weight_bits",
        None,
        "Of all layers' weights, 2 to 8, by default 8; below that the first and last layers keep 8, unless --bits says "
        "otherwise ('ends').",
    )
    flags.DEFINE_integer(
        "activation_bits",
        None,
        "Of all layers' results, 2 to 8 or 16, by default 8; below that the first and last layers keep 8.",
    )
    flags.DEFINE_string("bits", None, "A JSON file of widths by layer, operator and position; see docs/guides/bits.md.")
    flags.DEFINE_string(
        "max_size",
        None,
        "The most that the file may take (300kB, 1.2MB, 400KiB, bytes): chooses the bits of every layer; with --pipeline "
        "compress, or --compress, codebooks.",
    )
    flags.DEFINE_list(
        "compress",
        None,
        f"By which means it is made small, by default all that the target unpacks: {', '.join(MEANS)} (codebooks, zeros "
        "not stored, Huffman codes; the last two on TensorFlow Lite Micro).",
    )
    flags.DEFINE_float("mean_bits", None, "Chooses bits for so many of a weight in the mean, as they are stored.")
    flags.DEFINE_float(
        "max_bops", None, "Chooses bits for so many bit operations: multiplications x bits of weights x bits of data."
    )
    flags.DEFINE_string(
        "max_latency",
        None,
        "Chooses bits for an inference of so long on one thread of this machine (5ms, 800us), as LiteRT takes for each "
        "operator; also beside one of the other budgets.",
    )
    flags.DEFINE_enum(
        "sensitivity",
        "logits",
        list(SENSITIVITIES),
        "What bits are chosen by: what each layer does to the logits, measured; the second-order change of the loss by its "
        "rounding errors; or the trace of the loss's Hessian (HAWQ-V2).",
    )
    flags.DEFINE_string(
        "write_bits", None, "Writes the chosen widths to this file: edit it, and give it back as --bits."
    )
    flags.DEFINE_string("write_front", None, "Writes size against loss, and the bits of every layer, to this CSV file.")
    flags.DEFINE_enum("pipeline", None, list(pipelines.PIPELINES), "How much is done; see docs/passes.md.")
    flags.DEFINE_string(
        "passes", None, "Passes as text, 'a,b{option=value}'; beside --pipeline: its changes, '-a' leaves a out."
    )
    flags.DEFINE_string(
        "tuning_data", None, "For --pipeline fat or lsq: data to train on; by default the calibration data's."
    )
    flags.DEFINE_string(
        "tuning_labels", None, "For --pipeline lsq: a CSV of file and label of --tuning_data; labels inside are found."
    )
    flags.DEFINE_integer(
        "tuning_samples", 800, "For --pipeline fat or lsq: how many samples to train on.", lower_bound=1
    )
    flags.DEFINE_float(
        "teacher",
        None,
        "For --pipeline lsq: the float network's share of the loss, the labels have the rest (0.5 each).",
    )
    flags.DEFINE_float(
        "noise", None, "For --pipeline lsq: the share of the weights quantized in a step, by default all."
    )
    flags.DEFINE_list(
        "augment",
        [],
        "For --pipeline fat or lsq: trains on new views of the pictures in every epoch: flip (mirrored), shift, or both.",
    )
    flags.DEFINE_integer(
        "tuning_batch_size",
        None,
        "For --pipeline fat or lsq: samples of a training step, by default at most 16 or 64.",
        lower_bound=1,
    )
    flags.DEFINE_integer("epochs", None, "For --pipeline fat or lsq: passes over the tuning data.", lower_bound=1)
    flags.DEFINE_float("learning_rate", None, "For --pipeline fat or lsq: the largest of the training.")
    flags.DEFINE_float(
        "tuning_minutes",
        None,
        "Without --pipeline: trains (pipeline fat) where that is estimated to take at most so long; by default it does not.",
        lower_bound=0.0,
    )
    flags.DEFINE_string("checkpoint_dir", None, "For --pipeline fat or lsq: where the state of the training is kept.")
    flags.DEFINE_bool("resume", False, "For --pipeline fat or lsq: goes on from the last state in --checkpoint_dir.")
    flags.DEFINE_string("tensorboard", None, "For --pipeline fat or lsq: a folder for TensorBoard's event files.")
    flags.DEFINE_enum(
        "distribute", "none", ["none", "mirrored", "multi_worker"], "For --pipeline fat or lsq: how to train."
    )
    flags.DEFINE_bool(
        "prove",
        True,
        "Runs the file on the runtimes that are installed here, and holds them to the emulator, before writing.",
    )
    flags.DEFINE_bool("list_passes", False, "Prints the passes and their options, and ends.")
    flags.DEFINE_bool("list_models", False, "Prints the names of the zoo, and ends.")
    flags.DEFINE_string("print_after", None, "Prints the graph after this pass ('all' for every pass).")
    flags.DEFINE_integer("seed", 0, "Of everything that is drawn at random.", **SEEDS)
    flags.DEFINE_string("report", None, "Writes a page on what happened, layer by layer, to this folder: index.html.")
    flags.DEFINE_string("json", None, "Writes what is shown to this file.")
    flags.DEFINE_bool("reproducible", False, "Keeps times and folders out of --json: the same inputs, the same bytes.")
    flags.DEFINE_bool("verbose", False, "Shows all that every pass did and left, not only the first of each.")
    flags.DEFINE_bool("quiet", False, "Shows warnings and the last line only.")
