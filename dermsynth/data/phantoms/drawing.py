"""Draw one dermoscopy-like picture of a lesion with numpy and OpenCV.

The picture is made as light makes it: white light loses melanin's and haemoglobin's share of red, green and
blue on its way through the skin (Beer-Lambert), so tones, moles and redness mix in plausible colours. What a
lesion looks like follows the ABCD rule of dermoscopy (Stolz et al. 1994): asymmetry, border, colours out of
six, diameter. Lengths are millimetres until the last moment, so a picture at 64 and at 512 pixels shows the
same lesion.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

Field = NDArray[np.float32]

# Absorbance in red, green and blue for one unit of pigment, green = 1; fitted by eye to ISIC 2017 and 2020.
# The skin's own melanin is greyer than a mole's, as part of the light returns from above it.
SKIN_MELANIN = np.array([0.68, 1.0, 1.25], np.float32)
MELANIN = np.array([0.48, 1.0, 1.62], np.float32)
HAEMOGLOBIN = np.array([0.15, 1.0, 0.80], np.float32)
BLOODLESS = np.array([1.0, 0.97, 0.93], np.float32)
BLUE_GREY = np.array([0.45, 0.47, 0.56], np.float32)
INK = np.array([0.13, 0.12, 0.13], np.float32)
HAIR = np.array([0.19, 0.12, 0.09], np.float32)

# The six colours of the ABCD rule, with what each adds: melanin, haemoglobin.
COLOURS = {
    "light brown": (0.55, 0.05),
    "dark brown": (1.3, 0.1),
    "red": (-0.1, 0.55),
    "black": (2.6, 0.2),
    "blue-grey": (0.5, 0.0),
    "white": (-0.6, -0.2),
}


@dataclass(frozen=True)
class Skin:
    """What all pictures of one patient share, the clinic's dermoscope included.

    Args:
        melanin: absorbance of the skin in green; 0.05 is very light, 1.5 is dark.
        redness: absorbance of its blood in green.
        hairs: mean number of hairs in a picture.
        light: gains of red, green and blue.
    """

    melanin: float
    redness: float
    hairs: float
    light: tuple[float, float, float]

    def colour(self) -> Field:
        """Red, green and blue of the bare skin, in [0, 1]."""
        absorbed = self.melanin * SKIN_MELANIN + self.redness * HAEMOGLOBIN
        return (BLOODLESS * np.exp(-absorbed) * np.array(self.light)).astype(np.float32)


@dataclass(frozen=True)
class Lesion:
    """What the ABCD rule looks at.

    Args:
        asymmetry: of outline and of pigment, 0 to 1.
        border: how notched and abrupt the border is, 0 to 1.
        colours: how many of the six `COLOURS`.
        diameter: of the circle of the same area, mm.
        keratosis: drawn as a seborrheic keratosis: sharply bounded, milia-like cysts, no network.
    """

    asymmetry: float
    border: float
    colours: int
    diameter: float
    keratosis: bool = False


def draw(skin: Skin, lesion: Lesion, size: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Draw the lesion on the skin, with hair, ruler, vignette and grain.

    Args:
        skin: of the patient.
        lesion: what to draw.
        size: height and width in pixels.
        rng: everything that is left to chance.

    Returns:
        RGB, uint8 `[size, size, 3]`.
    """
    canvas = _Canvas(size, rng)
    absorbed = _bare_skin(canvas, skin)
    melanin, haemoglobin, veil = canvas.lesion(lesion)
    absorbed += melanin[..., None] * MELANIN + haemoglobin[..., None] * HAEMOGLOBIN
    picture = BLOODLESS * np.exp(-np.maximum(absorbed, 0.02))
    # The veil is light scattered above the pigment: it hides colours instead of multiplying them.
    picture += veil[..., None] * (BLUE_GREY * np.exp(-0.5 * skin.melanin) - picture)
    picture *= np.array(skin.light, np.float32)
    canvas.hair(picture, skin)
    if rng.random() < 0.25:
        canvas.ruler(picture)
    canvas.expose(picture)
    return (np.clip(picture, 0, 1) * 255 + 0.5).astype(np.uint8)


def _bare_skin(canvas: "_Canvas", skin: Skin) -> Field:
    """Absorbance `[H, W, 3]` of mottled, furrowed skin with a few freckles."""
    rng = canvas.rng
    furrows = 1 - np.abs(canvas.noise(30) + 0.6 * canvas.noise(64)) + 0.5 * canvas.noise(128)
    mottled = 0.5 * canvas.noise(3) + 0.5 * canvas.noise(9) + 0.4 * canvas.noise(22)
    blotched = 0.5 * canvas.noise(3) + 0.5 * canvas.noise(12) + 0.5 * canvas.noise(40)
    melanin = skin.melanin * (1 + 0.07 * mottled + 0.04 * furrows) + rng.uniform(0.005, 0.025) * furrows
    haemoglobin = skin.redness * (1 + rng.uniform(0.05, 0.22) * blotched)
    freckles = int(rng.poisson(6)) if rng.random() < 0.35 else 0
    places = rng.uniform(-0.5, 0.5, (freckles, 2)) * canvas.field
    spots = np.float32(rng.uniform(0.05, 0.2)) * canvas.dots(places, rng.uniform(0.2, 0.8, freckles), blur=0.2)
    return np.asarray(
        melanin[..., None] * SKIN_MELANIN + haemoglobin[..., None] * HAEMOGLOBIN + spots[..., None] * MELANIN,
        np.float32,
    )


class _Canvas:
    """A square field of view of some millimetres, and what can be drawn into it.

    All chance is drawn on grids that do not depend on the size in pixels.
    """

    def __init__(self, size: int, rng: np.random.Generator) -> None:
        self.size, self.rng = size, rng
        self.field = float(rng.uniform(11, 18))
        axis = ((np.arange(size, dtype=np.float32) + 0.5) / size - 0.5) * np.float32(self.field)
        self.x, self.y = np.meshgrid(axis, axis)

    def noise(self, cells: int) -> Field:
        """Smooth noise of unit variance at its nodes, `cells` waves across the field."""
        nodes = self.rng.standard_normal((cells, cells), dtype=np.float32)
        how = cv2.INTER_AREA if cells > self.size else cv2.INTER_CUBIC
        return np.asarray(cv2.resize(nodes, (self.size, self.size), interpolation=how))

    def dots(self, places: NDArray[np.float64], radii: NDArray[np.float64], blur: float = 0.08) -> Field:
        """Soft round dots, 1 in the middle; `places` `[N, 2]` and `radii` `[N]` in mm."""
        return self._strokes([(p[None], 2 * r) for p, r in zip(places, radii, strict=True)], blur=blur)

    def _strokes(self, strokes: list[tuple[NDArray[np.float64], float]], blur: float = 0.0) -> Field:
        """Lines `[N, 2]` of a width, both in mm, drawn finer and averaged: hairs are thinner than pixels."""
        fine = 4 * self.size if self.size <= 256 else 2 * self.size
        scale = fine / self.field
        mask = np.zeros((fine, fine), np.uint8)
        for points, width in strokes:
            pixels = np.round((points + self.field / 2) * scale).astype(np.int32)
            cv2.polylines(mask, [pixels], False, 255, max(1, round(width * scale)))
        small = cv2.resize(mask, (self.size, self.size), interpolation=cv2.INTER_AREA).astype(np.float32) / 255
        if blur:
            cv2.GaussianBlur(small, (0, 0), max(0.3, blur * self.size / self.field), dst=small)
        return np.asarray(small, np.float32)

    def lesion(self, lesion: Lesion) -> tuple[Field, Field, Field]:
        """The lesion's melanin and haemoglobin, and how much of the blue-white veil covers each pixel."""
        rng, radius = self.rng, lesion.diameter / 2
        centre = rng.normal(0, 0.05, 2) * self.field
        bend_x, bend_y = self.noise(9), self.noise(9)
        x = self.x - np.float32(centre[0]) + np.float32(0.035 * radius) * bend_x
        y = self.y - np.float32(centre[1]) + np.float32(0.035 * radius) * bend_y
        ragged = 0.6 * self.noise(24) + 0.4 * self.noise(48)
        table = radius * _outline(lesion, rng)
        angles = np.linspace(-np.pi, np.pi, len(table), dtype=np.float32)
        reach = np.interp(np.arctan2(y, x), angles, table).astype(np.float32)
        inside = reach - np.hypot(x, y) + np.float32(0.06 * radius * (0.3 + 1.2 * lesion.border)) * ragged
        # A benign mole fades out; an irregular border stops abruptly in some sectors and not in others.
        fade = (0.25 if lesion.keratosis else rng.uniform(0.4, 1.5)) * radius * 0.5
        fade = fade * np.clip(1 - lesion.border * (0.45 + 0.5 * bend_x), 0.2, 1.2)
        body = _step(inside / fade + 0.5)

        direction = rng.uniform(0, 2 * np.pi)
        tilt = (np.cos(direction) * x + np.sin(direction) * y) / np.float32(radius)
        depth = body * np.clip(1 + 0.22 * ragged + 0.75 * lesion.asymmetry * tilt, 0.15, 2.2)
        if lesion.keratosis:
            depth *= 1 + 0.15 * self.noise(30)
        else:
            depth *= 1 + self.network(x, y, lesion)
        melanin, haemoglobin, veil = np.zeros_like(body), np.zeros_like(body), np.zeros_like(body)
        for k, name in enumerate(_palette(lesion, rng)):
            extra_melanin, extra_haemoglobin = COLOURS[name]
            zone = depth if k == 0 else body * self.zone(x, y, radius, lesion, bend_y, ragged)
            melanin += np.float32(extra_melanin * rng.uniform(0.6, 1.2)) * zone
            haemoglobin += np.float32(extra_haemoglobin + rng.uniform(-0.1, 0.12)) * zone
            if name in ("blue-grey", "white"):
                # A haze with pigment showing through, denser in places, and not a stain of one strength.
                haze = np.clip(0.75 + 0.35 * ragged + 0.3 * self.noise(12) + 0.2 * self.noise(90), 0.15, 1.3)
                veil = np.maximum(veil, np.float32(0.6 if name == "blue-grey" else 0.3) * zone * haze)
        melanin += body * self.globules(centre, radius, lesion)
        return melanin, haemoglobin, veil

    def network(self, x: Field, y: Field, lesion: Lesion) -> Field:
        """The pigment network: a honeycomb of three crossed waves, bent more in an asymmetric lesion."""
        rng = self.rng
        bend = np.float32(0.15 + 0.15 * lesion.asymmetry)
        x, y = x + bend * self.noise(14), y + bend * self.noise(14)
        turn, wave = rng.uniform(0, np.pi), 2 * np.pi / rng.uniform(0.45, 0.75)
        comb = np.zeros_like(x)
        for angle in turn + np.array([0, np.pi / 3, 2 * np.pi / 3]):
            comb += np.cos(np.float32(wave * np.cos(angle)) * x + np.float32(wave * np.sin(angle)) * y)
        patchy = np.clip(0.6 + 0.5 * self.noise(5), 0, 1)
        # Lines are thinner than the holes between them.
        lines = 0.55 - _step((comb + np.float32(1.1)) / np.float32(2.2))
        return np.float32(rng.uniform(0.1, 1.0) ** 2) * patchy * lines

    def zone(self, x: Field, y: Field, radius: float, lesion: Lesion, bend: Field, ragged: Field) -> Field:
        """A blurred patch inside the lesion, off centre where the lesion is asymmetric."""
        angle, far = self.rng.uniform(0, 2 * np.pi), (0.1 + 0.6 * lesion.asymmetry) * radius
        across = self.rng.uniform(0.3, 0.55) * radius
        distance = np.hypot(x - np.float32(far * np.cos(angle)), y - np.float32(far * np.sin(angle)))
        return _step(1.1 - distance / np.float32(1.5 * across) + 0.22 * bend + 0.22 * ragged)

    def globules(self, centre: NDArray[np.float64], radius: float, lesion: Lesion) -> Field:
        """Brown globules and black dots; milia-like cysts, which are pale, in a keratosis."""
        rng = self.rng
        count = int(rng.poisson(14)) if lesion.keratosis or rng.random() < 0.45 else 0
        angle, far = rng.uniform(0, 2 * np.pi, count), np.sqrt(rng.uniform(0, 0.9, count)) * radius
        places = centre + np.stack([far * np.cos(angle), far * np.sin(angle)], axis=1)
        strength = rng.uniform(-0.7, -0.3) if lesion.keratosis else rng.uniform(0.5, 1.2)
        return np.float32(strength) * self.dots(places, rng.uniform(0.08, 0.22, count))

    def hair(self, picture: Field, skin: Skin) -> None:
        """Curved hairs over everything, mostly in one direction."""
        rng = self.rng
        along = rng.uniform(0, np.pi)
        strokes = []
        for _ in range(min(int(rng.poisson(skin.hairs)), 60)):
            start = rng.uniform(-0.6, 0.6, 2) * self.field
            angle, length = along + rng.normal(0, 0.5), rng.uniform(0.3, 1.3) * self.field
            curl = rng.normal(0, 0.9)
            turns = angle + curl * np.linspace(0, 1, 24)
            steps = np.stack([np.cos(turns), np.sin(turns)], axis=1) * length / 24
            strokes.append((start + np.cumsum(steps, axis=0), float(rng.uniform(0.05, 0.11))))
        # Hairs thin out towards their tips, no two are equally dark, and their round tops catch the light.
        for k, shade in enumerate((0.6, 1.0, 1.7)):
            some = strokes[k::3]
            colour = HAIR * np.float32(shade * rng.uniform(0.8, 1.2))
            tapered = [part for s, w in some for part in ((s[:17], w), (s[16:21], 0.7 * w), (s[20:], 0.45 * w))]
            picture += np.float32(0.92) * self._strokes(tapered)[..., None] * (colour - picture)
            shine = self._strokes([(s[2:18], 0.3 * w) for s, w in some], blur=0.01)[..., None]
            picture += np.float32(0.35) * shine * (np.float32(2.2) * colour + np.float32(0.12) - picture)

    def ruler(self, picture: Field) -> None:
        """A scale with a tick a millimetre near one edge, slightly askew."""
        rng = self.rng
        angle = rng.normal(0, 0.15) + rng.choice([0, np.pi / 2])
        right = np.array([np.cos(angle), np.sin(angle)])
        up = np.array([right[1], -right[0]])
        ticks = int(0.45 * self.field)
        start = -right * ticks / 2 - up * self.field * rng.uniform(0.34, 0.42) * rng.choice([-1, 1])
        strokes = [(np.stack([start, start + ticks * right]), 0.07)] if rng.random() < 0.6 else []
        for k in range(ticks + 1):
            foot = start + k * right
            strokes.append((np.stack([foot, foot + up * (0.9 if k % 5 == 0 else 0.5)]), 0.07))
        picture += 0.85 * self._strokes(strokes)[..., None] * (INK - picture)

    def expose(self, picture: Field) -> None:
        """Uneven light, the dermoscope's round stop, a little blur and the sensor's grain."""
        rng, half = self.rng, np.float32(self.field / 2)
        off = rng.normal(0, 0.08, 2)
        across = np.hypot(self.x / half - np.float32(off[0]), self.y / half - np.float32(off[1]))
        light = rng.uniform(0.93, 1.1) * (1 - rng.uniform(0.02, 0.2) * across**2)
        if rng.random() < 0.1:
            light *= _step((np.float32(rng.uniform(1.0, 1.3)) - across) / 0.06)
        picture *= light[..., None].astype(np.float32)
        cv2.GaussianBlur(picture, (0, 0), max(0.3, 0.03 * self.size / self.field), dst=picture)
        picture += np.float32(0.008) * rng.standard_normal(picture.shape, dtype=np.float32)


def _outline(lesion: Lesion, rng: np.random.Generator) -> NDArray[np.float64]:
    """Radius over the angle, of mean square 1: a random Fourier series, closed.

    Waves 2 to 5 make the shape, those above the notches; wave 1 would only move it.
    """
    angle = np.linspace(-np.pi, np.pi, 361)
    waves = np.arange(2, 21)
    size = np.where(
        waves == 2,
        rng.uniform(0.04, 0.2),
        np.where(waves <= 5, 0.02 + 0.16 * lesion.asymmetry, 0.003 + 0.085 * lesion.border) * 2.0 / waves**0.8,
    ) * np.where(waves == 2, 1, rng.rayleigh(0.6, len(waves)))
    phase = rng.uniform(0, 2 * np.pi, len(waves))
    radius = np.clip(1 + size @ np.cos(waves[:, None] * angle + phase[:, None]), 0.25, None)
    return np.asarray(radius / np.sqrt(np.mean(radius[:-1] ** 2)))


def _palette(lesion: Lesion, rng: np.random.Generator) -> list[str]:
    """The lesion's colours: a brown for its body, then others in random order."""
    body = "light brown" if rng.random() < 0.6 else "dark brown"
    others = [name for name in COLOURS if name != body]
    # A mole's second colour is the other brown far more often than a suspicious one.
    weights = np.array([6.0 if "brown" in name else 1.0 for name in others])
    order = rng.choice(len(others), len(others), replace=False, p=weights / weights.sum())
    return [body, *(others[i] for i in order)][: lesion.colours]


def _step(t: Field) -> Field:
    """Smooth step from 0 at 0 to 1 at 1."""
    t = np.clip(t, 0, 1)
    return (t * t * (3 - 2 * t)).astype(np.float32)
