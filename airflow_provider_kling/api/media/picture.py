"""What is known of a picture file, and that it cannot be used."""

from __future__ import annotations

from dataclasses import dataclass, field

UPRIGHT = 1
"""EXIF's orientation of a picture that is seen as it is stored."""


class PictureError(ValueError):
    """The picture cannot be used; the message says why, in words that follow its name."""


@dataclass(slots=True)
class Picture:
    """What was found in a picture file.

    :param format: ``JPEG`` or ``PNG``.
    :param width: pixels, as stored.
    :param height: pixels, as stored.
    :param orientation: EXIF's, 1 to 8; 1 is upright.
    :param oddities: what is wrong with it that no viewer minds, in words that follow "its".
    """

    format: str
    width: int = 0
    height: int = 0
    orientation: int = UPRIGHT
    oddities: list[str] = field(default_factory=list)

    @property
    def upright(self) -> bool:
        """False where EXIF says that it has to be turned or mirrored to be seen right."""
        return self.orientation == UPRIGHT
