// The colours of a heat map: more is further from the paper, monotone in
// lightness, so that it can be read without colour.

const dark = matchMedia('(prefers-color-scheme: dark)');

// The colour of a share between 0 and 1.
export function ramp(share) {
  const t = Math.min(Math.max(share, 0), 1);
  const bell = 1 - (2 * t - 1) ** 2;
  const [lightness, chroma, hue] = dark.matches
    ? [0.36 + 0.56 * t, 0.05 + 0.06 * bell, 280 - 175 * t]
    : [0.94 - 0.64 * t, 0.045 + 0.055 * bell, 105 + 165 * t];
  return `oklch(${lightness} ${chroma} ${hue})`;
}

export function gradient() {
  const stops = Array.from({ length: 9 }, (_, index) => ramp(index / 8));
  return `linear-gradient(to right, ${stops.join(', ')})`;
}

export const onTheme = (redraw, signal) => dark.addEventListener('change', redraw, { signal });
