"""The build rule of apps: a trained network in, the integer .tflite file that the app ships out.

    load("@intact//tools:intact.bzl", "intact_tflite")

docs/guides/build_step.md shows it in use, examples/bazel is a whole workspace.
"""

_FLAGS = ["granularity", "io", "max_accuracy_drop", "min_agreement", "pipeline", "preprocess", "target"]

def _path(files):
    """The file, or the folder that holds all the files: a SavedModel, or a folder of images."""
    if len(files) == 1:
        return files[0].path
    common = files[0].dirname.split("/")
    for file in files:
        parts = file.dirname.split("/")
        same = 0
        for i in range(min(len(common), len(parts))):
            if common[i] != parts[i]:
                break
            same = i + 1
        common = common[:same]
    return "/".join(common)

def _intact_tflite_impl(ctx):
    outputs = [ctx.outputs.tflite, ctx.outputs.report]
    args = ctx.actions.args()
    args.add("--model", _path(ctx.files.model))
    for flag in _FLAGS:
        if getattr(ctx.attr, flag):
            # Joined, since a value may begin with '-'.
            args.add(getattr(ctx.attr, flag), format = "--" + flag + "=%s")
    for flag in ["calibration_data", "labels", "test_data"]:
        if getattr(ctx.files, flag):
            args.add("--" + flag, _path(getattr(ctx.files, flag)))
    if ctx.attr.require_fully_mapped:
        args.add("--require_fully_mapped")
    args.add_all(ctx.attr.options)
    args.add("--output", ctx.outputs.tflite)
    args.add("--json", ctx.outputs.report)
    args.add_all(["--reproducible", "--quiet"])
    if ctx.outputs.source:
        args.add("--c_array", ctx.outputs.source)
        outputs += [ctx.outputs.source, ctx.outputs.header]
    ctx.actions.run(
        outputs = outputs,
        inputs = depset(
            ctx.files.model + ctx.files.calibration_data + ctx.files.labels + ctx.files.test_data,
            transitive = [depset(ctx.files._intact)],
        ),
        executable = ctx.file._convert,
        arguments = [args],
        mnemonic = "IntactTflite",
        progress_message = "Converting %s into integers" % ctx.label,
        # A build step that would fetch something fails instead.
        execution_requirements = {"block-network": "1"},
        # For INTACT_PYTHON, and for /usr/bin on the PATH.
        use_default_shell_env = True,
    )
    return [
        DefaultInfo(files = depset(outputs), runfiles = ctx.runfiles([ctx.outputs.tflite])),
        OutputGroupInfo(
            c_array = depset(outputs[2:]),
            report = depset([ctx.outputs.report]),
            tflite = depset([ctx.outputs.tflite]),
        ),
    ]

_intact_tflite = rule(
    implementation = _intact_tflite_impl,
    attrs = dict({
        "calibration_data": attr.label_list(allow_files = True),
        "header": attr.output(),
        "labels": attr.label_list(allow_files = True),
        "model": attr.label_list(allow_files = True, allow_empty = False, mandatory = True),
        "options": attr.string_list(),
        "report": attr.output(mandatory = True),
        "require_fully_mapped": attr.bool(),
        "source": attr.output(),
        "test_data": attr.label_list(allow_files = True),
        "tflite": attr.output(mandatory = True),
        "_convert": attr.label(default = "//tools:intact.sh", allow_single_file = True),
        "_intact": attr.label(default = "//tools:intact"),
    }, **{flag: attr.string() for flag in _FLAGS}),
)

def intact_tflite(
        name,
        model,
        target = "cpu",
        calibration_data = None,
        test_data = None,
        labels = None,
        preprocess = None,
        pipeline = None,
        granularity = None,
        io = None,
        min_agreement = None,
        max_accuracy_drop = None,
        require_fully_mapped = False,
        c_array = False,
        options = [],
        **kwargs):
    """Converts a trained network into `name`.tflite, whose operators all compute in integers, with its report.

    Outputs are `name`.tflite, `name`.json and, with `c_array`, `name`.cc and `name`.h. The same inputs give the same
    bytes: the report names no times. Where a gate is not passed there are no outputs and the build stops.

    Args:
      name: of the target and of its files.
      model: the network: a .keras, .h5, .pb or float .tflite file, or a filegroup of a SavedModel's files.
      target: where the file will run, one of `convert --help`.
      calibration_data: an .npy, .npz or TFRecord, or a filegroup of images; without it the ranges come from the
        network's batch norms.
      test_data: the samples that the file is judged on; by default the calibration data.
      labels: a CSV of file and label for these samples, where they have none inside.
      preprocess: what the network expects of images: tf, torch, caffe, unit or none.
      pipeline: fast, default, fat, data_free or data_free_fast.
      granularity: per_channel or per_tensor; by default what the target prefers.
      io: the type of the file's inputs and outputs; int8 by default.
      min_agreement: a gate: the least agreement with the float network, in per cent (97.5) or as a share (0.975).
      max_accuracy_drop: a gate: the most points of accuracy that may be lost; needs labels.
      require_fully_mapped: a gate: every operator is predicted to run on the target.
      c_array: also writes the file as an array in C.
      options: further flags of `convert`, as they are.
      **kwargs: what every rule has: visibility, tags and so on.
    """
    _intact_tflite(
        name = name,
        tflite = name + ".tflite",
        report = name + ".json",
        source = name + ".cc" if c_array else None,
        header = name + ".h" if c_array else None,
        model = [model],
        target = target,
        calibration_data = [calibration_data] if calibration_data else [],
        test_data = [test_data] if test_data else [],
        labels = [labels] if labels else [],
        preprocess = preprocess,
        pipeline = pipeline,
        granularity = granularity,
        io = io,
        min_agreement = None if min_agreement == None else str(min_agreement),
        max_accuracy_drop = None if max_accuracy_drop == None else str(max_accuracy_drop),
        require_fully_mapped = require_fully_mapped,
        options = options,
        **kwargs
    )
