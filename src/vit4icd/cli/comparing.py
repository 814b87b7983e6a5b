"""The verb that compares two pictures."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro
from tyro.conf import Positional

from vit4icd.cli.arguments import Flag, MaybeCount, MaybeDevice, MaybePath
from vit4icd.cli.codes import DONE, MATCHED
from vit4icd.cli.options import most_pixels, open_describer, require_outputs, settled
from vit4icd.cli.terminal import say, shown
from vit4icd.errors import ConfigError

if TYPE_CHECKING:
    from vit4icd.matches import Match

__all__ = ["compare"]


def compare(
    query: Annotated[Positional[Path], tyro.conf.arg(metavar="QUERY")],
    reference: Annotated[Positional[Path], tyro.conf.arg(metavar="REFERENCE")],
    /,
    *,
    out: MaybePath = None,
    format_: Annotated[Literal["text", "json"], tyro.conf.arg(name="format")] = "text",
    fail_on_match: Flag = False,
    model: MaybePath = None,
    device: MaybeDevice = None,
    threads: MaybeCount = None,
    max_pixels: MaybeCount = None,
    quiet: Flag = False,
) -> int:
    """Say whether one picture is a copy of another, and of which part; draw the proof.

    Args:
        query: The picture in question.
        reference: The picture it may be a copy of.
        out: Draw both, with their common part outlined and laid over, into this .jpg or .png.
        format_: How the answer is written.
        fail_on_match: End with exit code 11 when it is a copy.
        model: Model folder; the packaged model by default.
        device: Where the model runs.
        threads: Processors to use; all this process may use by default.
        max_pixels: Refuse pictures of more pixels, before decoding them.
        quiet: No remarks.
    """
    require_outputs(out)
    if out is not None and out.suffix.lower() not in (".jpg", ".jpeg", ".png"):
        raise ConfigError(f"--out is a .jpg or .png, not {shown(str(out))}")
    options, most = settled(model, device, threads), most_pixels(max_pixels)
    from vit4icd.compare import compare as compare_pictures
    from vit4icd.drawing import draw_match
    from vit4icd.images import read_image, write_image
    from vit4icd.storage import atomic_path

    describer = open_describer(options)
    match = compare_pictures(query, reference, describer=describer, max_pixels=most)
    if format_ == "json":
        print(json.dumps(match.to_json(), ensure_ascii=False, indent=2))
    else:
        print("\n".join(_lines(match)))
    if out is not None:
        images = read_image(query, max_pixels=most), read_image(reference, max_pixels=most)
        picture = draw_match(*images, match)
        with atomic_path(out) as temporary:
            write_image(temporary, picture, suffix=out.suffix)
        say(quiet, f"drawn: {shown(str(out))}")
    return MATCHED if fail_on_match and match.is_copy else DONE


def _lines(match: "Match") -> list[str]:
    from vit4icd.matches import probability_text

    probability = probability_text(match.probability) or "not known"
    lines = [
        f"verdict      {match.verdict}",
        f"probability  {probability}",
        f"score        {match.score:.3f} (similarity {match.similarity:.3f})",
    ]
    overlap = match.overlap
    if overlap is None:
        return [*lines, "overlap      none proven"]
    return [
        *lines,
        f"overlap      {overlap.query_share:.0%} of the query is {overlap.reference_share:.0%} "
        "of the reference",
        f"transform    {overlap.motion}",
        f"evidence     {overlap.n_matches} places, {overlap.agreement:.0%} of the pixels and "
        f"{overlap.consensus:.0%} of distinctive matches agree",
    ]
