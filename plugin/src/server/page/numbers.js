// Numbers as people read them: decimal units, true minus signs.

const scaled = (value, base, units) => {
  let unit = 0;
  while (Math.abs(value) >= base && unit < units.length - 1) {
    value /= base;
    unit += 1;
  }
  return [value, units[unit]];
};

const digits = (value) => {
  const size = Math.abs(value);
  if (size === 0 || size >= 100) return value.toFixed(0);
  if (size >= 10) return value.toFixed(1);
  return value.toFixed(2);
};

export const minus = (text) => text.replace(/^-/, '−');

export function bytes(value) {
  const [number, unit] = scaled(value, 1000, ['B', 'kB', 'MB', 'GB', 'TB']);
  return `${digits(number)} ${unit}`;
}

export function amount(value) {
  const [number, unit] = scaled(value, 1000, ['', 'k', 'M', 'B', 'T']);
  return `${digits(number)} ${unit}`.trim();
}

// A number with three significant digits.
export function number(value) {
  if (!Number.isFinite(value)) return '–';
  const size = Math.abs(value);
  if (size !== 0 && (size >= 1e6 || size < 1e-3)) return minus(value.toExponential(2));
  return minus(size > 0 && size < 1 ? value.toFixed(3) : digits(value));
}

// A share as a change: +12.3%.
export function change(value, decimals = 1) {
  const text = (value * 100).toFixed(decimals);
  return (Number(text) > 0 ? '+' : '') + minus(text) + '%';
}

export const percent = (value) => minus((value * 100).toFixed(1)) + '%';

export function duration(milliseconds) {
  return milliseconds < 1000 ? `${Math.round(milliseconds)} ms` : `${(milliseconds / 1000).toFixed(1)} s`;
}

// 8, or 8–16 if they differ.
export function range(values) {
  if (!values.length) return '–';
  const [low, high] = [Math.min(...values), Math.max(...values)];
  return low === high ? String(low) : `${low}–${high}`;
}
