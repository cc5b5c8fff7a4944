"""The `edge-fr` command: arguments in, one call, words out."""

from __future__ import annotations

import argparse
import select
import sys
from collections.abc import Callable, Sequence

from edge_fr import commands, standard_streams
from edge_fr.errors import EdgeFrError, EventError
from edge_fr.model_options import add_model_options, add_unproven
from edge_fr.printable import printable
from edge_fr.standard_streams import as_typed


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command. Returns 0 on success, 1 on an error that was explained, 130 after Ctrl-C, and 141
    where nobody reads what it prints any more, as in `edge-fr models show yunet | head`."""
    standard_streams.prepare()
    arguments = _parser().parse_args(argv)
    command: Callable[[argparse.Namespace], int] = arguments.command
    try:
        code = command(arguments)
        _finish_printing()
        return code
    except EdgeFrError as error:
        for text in f"edge-fr: {error}".split("\n"):
            print(printable(text), file=sys.stderr)
        return 1
    except PermissionError as error:  # of a folder on the way to a file, wherever it was looked for
        if error.filename is None:
            raise
        print(f"edge-fr: {error.strerror}: {error.filename}; `namei -l` shows whose it is", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        if not _unread():
            raise
        standard_streams.mute()
        return 141


def _finish_printing() -> None:
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:  # the disk that it goes to is full
        standard_streams.mute()
        raise EventError(f"cannot print to stdout: {error.strerror}") from error


def _unread() -> bool:
    """Whether stdout is a pipe whose other end is closed."""
    stdout = select.poll()
    stdout.register(sys.stdout.fileno(), select.POLLOUT)
    return any(event & select.POLLERR for _, event in stdout.poll(0))


def _nanoseconds(seconds: str) -> int:
    value = float(seconds)
    if not 0 < value < 1e6:
        raise argparse.ArgumentTypeError(f"{seconds} is not a number of seconds above 0")
    return round(value * 1e9)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="edge-fr", description="Face recognition from cameras, videos and pictures."
    )
    choices = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, call: Callable[[argparse.Namespace], int], text: str) -> argparse.ArgumentParser:
        command = choices.add_parser(name, help=text, description=text)
        command.set_defaults(command=call)
        return command

    def add_json(command: argparse.ArgumentParser) -> None:
        command.add_argument("--json", action="store_true", help="print JSON and nothing else on stdout")

    def add_certificate(command: argparse.ArgumentParser) -> None:
        command.add_argument(
            "--certificate", metavar="CAMERA.pem", help="trust this one, which the camera made itself"
        )

    def add_mounting(command: argparse.ArgumentParser) -> None:
        command.add_argument(
            "--rotate", type=int, choices=[0, 90, 180, 270], help="turn the pictures clockwise (0)"
        )
        command.add_argument("--flip", action="store_true", default=None, help="mirror the pictures, first")
        command.add_argument(
            "--aspect", metavar="W:H", help="shape of a picture whose stream tells a wrong one, such as 16:9"
        )

    run = add("run", commands.run, "watch a camera, video, picture or folder and report who is seen")
    run.add_argument("--config", metavar="SITE.yaml", help="many cameras: a site's file")
    run.add_argument(
        "source",
        nargs="?",
        help="0, v4l2:///dev/video0, rtsp(s)://..., http(s)://..., csi://0, a video, a picture, a folder/, "
        "test://",
    )
    run.add_argument("--gallery", help="the people database (without one everybody is unknown)")
    run.add_argument("--events", metavar="OUT.jsonl", help="append the events to this file")
    run.add_argument(
        "--candidates",
        action="store_true",
        default=None,
        help="tell of each event also the people below the threshold, up to five",
    )
    run.add_argument("--annotate", metavar="OUT.mp4", help="write the video with boxes and names")
    run.add_argument("--reader", choices=["auto", "opencv", "gstreamer"], help="(auto)")
    run.add_argument("--camera", type=as_typed, help="the camera's name in events (made from the source)")
    run.add_argument("--fpir", type=float, help="share of strangers that may be given a name (0.01)")
    run.add_argument("--decide-within", type=_nanoseconds, metavar="SECONDS", help="answer by then (2)")
    run.add_argument(
        "--tiles",
        type=int,
        metavar="N",
        help="follow faces from 12 px in 4K: look at N enlarged parts of each frame",
    )
    add_certificate(run)
    add_mounting(run)
    add_model_options(run)
    add_json(run)

    audit = add("audit", commands.audit, "tell what a camera can identify, and what to change at it")
    audit.add_argument("source", help="as for run")
    audit.add_argument("-o", "--output", default="audit.html", metavar="OUT.html", help="(%(default)s)")
    audit.add_argument("--minutes", type=float, help="stop after so many (10; what has an end: all of it)")
    audit.add_argument(
        "--fov", type=float, metavar="DEGREES", help="the lens's horizontal field of view: tells metres"
    )
    audit.add_argument(
        "--no-pictures", dest="pictures", action="store_false", help="keep no picture of anybody"
    )
    audit.add_argument(
        "--reader", default="auto", choices=["auto", "opencv", "gstreamer"], help="(%(default)s)"
    )
    audit.add_argument(
        "--camera",
        type=as_typed,
        help="the camera's name on the page (made from the source)",
    )
    add_certificate(audit)
    add_mounting(audit)
    add_model_options(audit)

    enroll = add("enroll", commands.enroll, "add a person's pictures to a gallery")
    enroll.add_argument("person", type=as_typed)
    enroll.add_argument("images", nargs="+", metavar="IMAGE")
    enroll.add_argument("--gallery", default="people.db", help="(%(default)s)")
    enroll.add_argument("--force", action="store_true", help="keep a picture that looks like somebody else")
    add_model_options(enroll)
    add_json(enroll)

    gallery = add("gallery", commands.gallery_list, "list, compare or remove enrolled people")
    actions = gallery.add_subparsers(required=True, metavar="ACTION")
    listing = actions.add_parser("list", help="who is enrolled")
    removal = actions.add_parser("remove", help="forget a person and erase the templates")
    removal.add_argument("person", type=as_typed)
    checking = actions.add_parser("check", help="which entries look like one person")
    telling = actions.add_parser("threshold", help="which score a name takes, and what it rests on")
    telling.add_argument("--fpir", type=float, help="share of strangers that may be given a name (0.01)")
    telling.add_argument(
        "--strangers", type=float, default=100.0, metavar="N", help="who come by in a day (%(default)g)"
    )
    for action in (checking, telling):
        action.add_argument("--embedder", default="recognizer", help="of the gallery (%(default)s)")
    for action, call in (
        (listing, commands.gallery_list),
        (removal, commands.gallery_remove),
        (checking, commands.gallery_check),
        (telling, commands.gallery_threshold),
    ):
        action.set_defaults(command=call)
        action.add_argument("--gallery", default="people.db", help="(%(default)s)")
        add_json(action)

    models = add("models", commands.models_list, "fetch, list and check the models")
    actions = models.add_subparsers(required=True, metavar="ACTION")
    pull = actions.add_parser("pull", help="fetch models into the cache")
    pull.add_argument("names", nargs="*", metavar="NAME", help="(all)")
    pull.set_defaults(command=commands.models_pull)
    listing = actions.add_parser("list", help="which models there are, and which are here")
    add_json(listing)
    listing.set_defaults(command=commands.models_list)
    showing = actions.add_parser(
        "show", help="print a model's card: what it is, was trained on, and cannot do"
    )
    showing.add_argument("model", help="a model's name or an ONNX file")
    add_json(showing)
    showing.set_defaults(command=commands.models_show)
    check = actions.add_parser("verify", help="hash the cached models again")
    check.add_argument("names", nargs="*", metavar="NAME", help="(all that are here)")
    check.set_defaults(command=commands.models_verify)
    card = actions.add_parser("card", help="write the card of a model of your own beside it")
    card.add_argument("model", metavar="MODEL.onnx")
    card.add_argument("--task", required=True, choices=["detect", "embed"])
    card.add_argument("--colour", required=True, choices=["BGR", "RGB"])
    card.add_argument("--input-range", required=True, nargs=2, type=float, metavar=("LOW", "HIGH"))
    card.add_argument("--head", choices=["yunet", "scrfd", "retinaface"], help="of a detector")
    card.add_argument("--embedding-size", type=int, help="of an embedder")
    card.add_argument("--licence", required=True)
    card.add_argument("--training-data", required=True)
    card.set_defaults(command=commands.models_card)

    build = add("build", commands.build, "turn an ONNX file into a TensorRT engine for this device")
    build.add_argument("model", metavar="MODEL", help="an ONNX file or a model's name")
    build.add_argument("-o", "--output", metavar="OUT.engine", help="(the model's name, here)")
    build.add_argument(
        "--library", default="tensorrt", choices=["tensorrt", "tensorrt_rtx"], help="(%(default)s)"
    )
    for name, default in (("batch", "1 8 32, or 1 1 1 for a detector"), ("height", ""), ("width", "")):
        build.add_argument(
            f"--{name}",
            nargs=3,
            type=int,
            metavar=("LEAST", "BEST", "GREATEST"),
            help=f"({default or 'of pictures: 32 to 1920'})",
        )
    build.add_argument("--force", action="store_true", help="build even if the engine is there")
    build.add_argument("--dla", type=int, metavar="CORE", help="run on this deep learning accelerator")
    build.add_argument(
        "--calibration",
        metavar="FACES.npy",
        help="let TensorRT 8 or 10 find INT8 ranges from these float32 (N, 3, 112, 112) faces",
    )
    add_unproven(build)

    bench = add("bench", commands.bench, "measure where the time of a frame goes on this machine")
    bench.add_argument("source", nargs="?", default="test://?frames=200", help="(%(default)s)")
    add_model_options(bench)
    add_json(bench)

    add_json(add("doctor", commands.doctor, "what this machine has, what is missing, and how to install it"))
    return parser


if __name__ == "__main__":
    sys.exit(main())
