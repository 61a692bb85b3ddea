"""The region of interest: the part of every image of a scenario that counts (`llbnad.config.RegionConfig`).

A mask file is read once and reduced to at most LONGEST_SIDE pixels, because a patch is coarser than that. A model file
keeps the reduced mask, so that a model needs no other file.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from llbnad.config import RegionConfig
from llbnad.data.images import load_rgb
from llbnad.errors import ConfigError, DataError

LONGEST_SIDE = 1024  # pixels of a mask that is kept
BRIGHT = 128  # grey values from here on are inside


@dataclass(frozen=True, eq=False)
class RegionOfInterest:
    """A region that is ready to use.

    Args:
        config: the settings.
        mask: (h, w) bool, True inside, for any image; None without a mask file.
    """

    config: RegionConfig
    mask: np.ndarray | None = None

    @classmethod
    def read(cls, config: RegionConfig | None) -> "RegionOfInterest | None":
        """Read the mask file that the settings name. Return None for no settings, and for settings that leave nothing
        out.

        Raises:
            ConfigError: the mask is missing, unreadable or dark everywhere.
        """
        if config is None or config == RegionConfig():
            return None
        if config.mask is None:
            return cls(config)
        try:
            picture = load_rgb(Path(config.mask)).convert("L")
        except FileNotFoundError:
            raise ConfigError(f"region.mask {config.mask} does not exist: name an image that is white inside") from None
        except DataError as error:
            raise ConfigError(f"region.mask: {error}") from None
        inside = picture.point([255 * (grey >= BRIGHT) for grey in range(256)])
        mask = np.asarray(inside.reduce(-(-max(inside.size) // LONGEST_SIDE))) >= BRIGHT
        if not mask.any():
            raise ConfigError(f"region.mask {config.mask} is dark everywhere: draw what counts in white")
        return cls(config, mask)

    @property
    def depends_on_size(self) -> bool:
        """Whether the share of an image that is inside depends on the image's width and height."""
        in_pixels = self.config.unit == "pixels" and bool(self.config.polygon)
        return bool(self.config.border) or in_pixels

    def draw(self, image: tuple[int, int], size: tuple[int, int]) -> np.ndarray:
        """Draw the region of an image at another size.

        Args:
            image: width and height of the image in pixels.
            size: width and height wanted.

        Returns:
            (height, width) bool, True inside.
        """
        width, height = size
        across, down = width / image[0], height / image[1]
        if self.mask is not None:
            # reduced by area, enlarged to the nearest pixel
            way = Image.Resampling.BOX
            inside = np.asarray(Image.fromarray(self.mask.astype(np.uint8) * 255).resize(size, way)) >= BRIGHT
        elif self.config.polygon:
            scale = (width, height) if self.config.unit == "share" else (across, down)
            picture = Image.new("L", size)
            # a pixel's centre lies at a whole number for Pillow, and half a pixel further for a corner's coordinates
            corners = [(x * scale[0] - 0.5, y * scale[1] - 0.5) for x, y in self.config.polygon]
            ImageDraw.Draw(picture).polygon(corners, fill=255)
            inside = np.asarray(picture) >= BRIGHT
        else:
            inside = np.ones((height, width), bool)
        border = self.config.border * (min(image) if self.config.unit == "share" else 1)  # pixels of the image
        x, y = (np.arange(width) + 0.5) / across, (np.arange(height) + 0.5) / down
        columns = (x > border) & (x < image[0] - border)
        rows = (y > border) & (y < image[1] - border)
        return inside & rows[:, None] & columns

    def equals(self, other: "RegionOfInterest | None") -> bool:
        """Return whether another region leaves out the same. The name of a mask file does not count."""
        if other is None or (self.mask is None) != (other.mask is None):
            return False
        same = self.mask is None or (other.mask is not None and np.array_equal(self.mask, other.mask))
        return same and self.config.model_copy(update={"mask": None}) == other.config.model_copy(update={"mask": None})
