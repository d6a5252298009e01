"""`cvcc-zoo demo`: published models in a browser, two side by side on an image of your own."""

from collections.abc import Sequence

from cvcc_zoo.cli.parsing import ZooParser, command_parser
from cvcc_zoo.demo import Limits, build, own_files
from cvcc_zoo.files.signals import ended_by_signals
from cvcc_zoo.weights.card import list_cards, read_card
from cvcc_zoo.zoo.trained import find_trained

PORTS = range(1, 65536)
WAITING = 50  # requests to classify an image


def parser() -> ZooParser:
    """Return the parser of the command."""
    parser = command_parser("demo", "[NAME...] [options]")
    parser.add_argument(
        "names",
        type=str,
        nargs="*",
        default=[],
        help="Published weights (by default all, the best first), cards, run folders or checkpoints.",
    )
    parser.add_argument("--port", type=int, default=7860, help="The port on which the page is served.")
    parser.add_argument("--open", type=bool, default=True, help="Open the page in the browser.")
    return parser


def main(args: Sequence[str]) -> int:
    """Run the command; it serves until Ctrl-C."""
    config = parser().parse_args(list(args))
    if config.port not in PORTS:
        raise ValueError(f"a port is a number from 1 to 65535, not {config.port}")
    for name in config.names:
        find_trained(name)
    with own_files() as files, ended_by_signals():
        app = build(config.names or best_first(), files)
        try:
            app.queue(max_size=WAITING).launch(
                server_name="127.0.0.1",
                server_port=config.port,
                inbrowser=config.open,
                show_error=True,
                app_kwargs={"middleware": [(Limits, (), {"folder": files})]},
            )
        except OSError as error:
            raise OSError(f"port {config.port} is taken ({error}); choose another --port=...") from error
    return 0


def best_first() -> list[str]:
    """Return the names of all published weights for grey or colour images, the highest test accuracy first."""
    cards = [read_card(path) for path in list_cards().values()]
    usable = [card for card in cards if card.hparams.get("in_channels", 3) in (1, 3)]
    ranked = sorted(usable, key=lambda card: -float(card.measured.get("test_accuracy", 0)))
    colour = [card.name for card in ranked if card.hparams.get("in_channels", 3) == 3]
    return colour + [card.name for card in ranked if card.name not in colour]
