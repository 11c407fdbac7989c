// Saliency of every expert of every layer, with what stays and what goes.
//
// Layers decide apart, and their saliencies are on different scales, so colours
// are relative to the most salient expert of the layer. An expert that goes is
// a smaller square; one that stays whatever its saliency has a ring.

import { byId, element } from '/assets/dom.js';
import { number } from '/assets/numbers.js';
import { gradient, onTheme, ramp } from '/assets/ramp.js';

const SMALLER = 0.42;
const LABEL = { left: 46, top: 22 };
const MOVES = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };

// Rows of the map: layers that have experts.
function rows(plan) {
  const safe = new Set([...(plan.method.constraints?.super_experts ?? []), ...(plan.method.constraints?.protected ?? [])]);
  return plan.layers.filter((layer) => layer.scores.length).map((layer) => {
    const kept = new Set(layer.kept);
    const least = Math.min(0, ...layer.scores);
    const most = Math.max(least, ...layer.scores);
    const order = layer.scores.map((_, expert) => expert).sort((a, b) => layer.scores[b] - layer.scores[a]);
    const ranks = [];
    order.forEach((expert, rank) => { ranks[expert] = rank + 1; });
    const cells = layer.scores.map((score, expert) => ({
      expert,
      score,
      share: most > least ? (score - least) / (most - least) : 1,
      kept: kept.has(expert) && !layer.dropped,
      safe: safe.has(`${layer.layer}:${expert}`),
      rank: ranks[expert],
    }));
    return { layer: layer.layer, dropped: layer.dropped, cells, sorted: order.map((expert) => cells[expert]) };
  });
}

const say = (row, cell) => {
  const fate = row.dropped ? 'goes with its layer' : cell.kept ? (cell.safe ? 'protected' : 'kept') : 'removed';
  return `Layer ${row.layer}, expert ${cell.expert}: saliency ${number(cell.score)}, ${fate}, rank ${cell.rank} of ${row.cells.length}`;
};

// The figure of a plan. `signal` ends what it listens to.
export function heatmap(plan, signal) {
  const map = new Figure(rows(plan), signal);
  const swatch = (kind, text) => element('span', {}, element('i', { className: `swatch ${kind}` }), text);
  const scale = element('i', { className: 'ramp' });
  const colour = () => { scale.style.background = gradient(); };
  colour();
  onTheme(colour, signal);
  const sort = element('input', { type: 'checkbox', id: 'sorted' });
  sort.addEventListener('change', () => map.sort(sort.checked));
  return element('div', {},
    element('div', { className: 'controls' },
      element('label', {}, sort, 'Order experts by saliency'),
      element('div', { className: 'keys' },
        element('span', {}, 'least', scale, 'most salient of its layer'),
        swatch('kept', 'kept'), swatch('gone', 'removed'),
        map.rows.some((row) => row.cells.some((cell) => cell.safe)) ? swatch('safe', 'protected') : null)),
    map.frame, map.readout);
}

class Figure {
  constructor(rows, signal) {
    this.rows = rows;
    this.sorted = false;
    this.at = null;
    this.canvas = element('canvas');
    this.readout = element('p', { className: 'readout', 'aria-live': 'polite' });
    this.frame = element('div', {
      className: 'map',
      tabIndex: 0,
      role: 'application',
      'aria-roledescription': 'heat map',
      'aria-label': `Saliency of ${rows[0]?.cells.length ?? 0} experts in ${rows.length} layers. Arrow keys move from expert to expert.`,
    }, this.canvas);
    this.idle();
    this.canvas.addEventListener('pointermove', (event) => this.point(event));
    this.canvas.addEventListener('pointerdown', (event) => this.point(event));
    this.canvas.addEventListener('pointerleave', () => this.leave());
    this.frame.addEventListener('keydown', (event) => this.key(event));
    this.frame.addEventListener('focus', () => { if (!this.at && this.frame.matches(':focus-visible')) this.move([0, 0]); });
    this.frame.addEventListener('blur', () => this.leave());
    const sizes = new ResizeObserver(() => this.draw());
    sizes.observe(this.frame);
    signal.addEventListener('abort', () => sizes.disconnect());
    onTheme(() => this.draw(), signal);
  }

  sort(sorted) {
    this.sorted = sorted;
    this.draw();
  }

  cells(row) {
    return this.sorted ? row.sorted : row.cells;
  }

  // Sizes for the room there is: layers are rows, or columns where that lets
  // more of a wide model be seen on a narrow screen.
  measure() {
    const room = this.frame.clientWidth - LABEL.left - 1;
    const across = Math.max(1, ...this.rows.map((row) => row.cells.length));
    const down = Math.max(1, this.rows.length);
    this.turned = room / across < 7 && down < across;
    const columns = this.turned ? down : across;
    const width = Math.min(40, Math.max(this.turned ? 6 : 5, Math.floor(room / columns)));
    const height = Math.min(24, Math.max(7, width));
    this.cell = { width, height };
    this.size = { width: LABEL.left + columns * width + 1, height: LABEL.top + (this.turned ? across : down) * height + 1 };
  }

  draw() {
    if (!this.frame.clientWidth) return;
    this.measure();
    const { width, height } = this.size;
    const scale = devicePixelRatio || 1;
    this.canvas.width = Math.round(width * scale);
    this.canvas.height = Math.round(height * scale);
    this.canvas.style.width = `${width}px`;
    this.canvas.style.height = `${height}px`;
    const style = getComputedStyle(this.frame);
    const colour = (name) => style.getPropertyValue(name).trim();
    const pen = this.canvas.getContext('2d');
    pen.setTransform(scale, 0, 0, scale, 0, 0);
    pen.clearRect(0, 0, width, height);
    pen.font = `11px ${style.fontFamily}`;
    this.rows.forEach((row, index) => this.cells(row).forEach((cell, place) => this.paint(pen, index, place, row, cell, colour)));
    this.labels(pen, colour('--muted'));
    this.cursor(pen, colour('--ink'));
  }

  corner(index, place) {
    const [column, line] = this.turned ? [index, place] : [place, index];
    return [LABEL.left + column * this.cell.width, LABEL.top + line * this.cell.height];
  }

  paint(pen, index, place, row, cell, colour) {
    const [x, y] = this.corner(index, place);
    const { width, height } = this.cell;
    const [w, h] = [width - 1, height - 1];
    pen.fillStyle = ramp(cell.share);
    if (cell.kept) {
      pen.fillRect(x, y, w, h);
    } else {
      const [a, b] = [Math.max(2, w * SMALLER), Math.max(2, h * SMALLER)];
      pen.fillRect(x + (w - a) / 2, y + (h - b) / 2, a, b);
    }
    if (cell.safe && cell.kept && width >= 7 && height >= 7) {
      pen.beginPath();
      pen.arc(x + w / 2, y + h / 2, Math.min(w, h) * 0.24, 0, 2 * Math.PI);
      pen.fillStyle = colour('--paper');
      pen.fill();
      pen.strokeStyle = colour('--ink');
      pen.lineWidth = 1.5;
      pen.stroke();
    }
    if (row.dropped && place === 0) {
      const count = this.cells(row).length;
      pen.strokeStyle = colour('--muted');
      pen.lineWidth = 1;
      pen.beginPath();
      pen.moveTo(x + (this.turned ? w / 2 : 0), y + (this.turned ? 0 : h / 2));
      pen.lineTo(x + (this.turned ? w / 2 : width * count - 1), y + (this.turned ? height * count - 1 : h / 2));
      pen.stroke();
    }
  }

  // Layers by number; experts too, unless they are ordered by saliency.
  labels(pen, colour) {
    pen.fillStyle = colour;
    const { width, height } = this.cell;
    const every = (size, room) => Math.max(1, Math.ceil(room / size));
    const layers = this.rows.map((row) => String(row.layer));
    const experts = this.cells(this.rows[0] ?? { cells: [], sorted: [] }).map((cell, place) => String(this.sorted ? place + 1 : cell.expert));
    const [top, side] = this.turned ? [layers, experts] : [experts, layers];
    pen.textBaseline = 'middle';
    pen.textAlign = 'center';
    const step = every(width, 26);
    top.forEach((text, column) => {
      if (column % step === 0) pen.fillText(text, LABEL.left + (column + 0.5) * width, LABEL.top - 8);
    });
    pen.textAlign = 'right';
    const rise = every(height, 13);
    side.forEach((text, line) => {
      if (line % rise === 0) pen.fillText(text, LABEL.left - 6, LABEL.top + (line + 0.5) * height);
    });
    pen.textAlign = 'left';
    pen.fillText(this.turned ? (this.sorted ? 'rank' : 'expert') : 'layer', 0, LABEL.top - 8);
  }

  cursor(pen, colour) {
    if (!this.at) return;
    const [x, y] = this.corner(...this.at);
    pen.strokeStyle = colour;
    pen.lineWidth = 2;
    pen.strokeRect(x - 0.5, y - 0.5, this.cell.width, this.cell.height);
  }

  point(event) {
    const box = this.canvas.getBoundingClientRect();
    const column = Math.floor((event.clientX - box.left - LABEL.left) / this.cell.width);
    const line = Math.floor((event.clientY - box.top - LABEL.top) / this.cell.height);
    const [index, place] = this.turned ? [column, line] : [line, column];
    if (!this.rows[index]?.cells[place]) {
      this.leave();
      return;
    }
    this.select(index, place);
    tip(this.readout.textContent, event.clientX, event.clientY);
  }

  key(event) {
    if (event.key === 'Escape') return this.leave();
    const by = MOVES[event.key];
    if (!by || event.ctrlKey || event.metaKey || event.altKey) return undefined;
    event.preventDefault();
    return this.move(this.turned ? [by[1], by[0]] : by);
  }

  move([layers, experts]) {
    const [index, place] = this.at ?? [0, 0];
    const next = Math.min(Math.max(index + layers, 0), this.rows.length - 1);
    if (next < 0) return;
    this.select(next, Math.min(Math.max(place + experts, 0), this.rows[next].cells.length - 1));
    const [x] = this.corner(...this.at);
    if (x < this.frame.scrollLeft + LABEL.left || x > this.frame.scrollLeft + this.frame.clientWidth - 40) {
      this.frame.scrollLeft = x - this.frame.clientWidth / 2;
    }
  }

  select(index, place) {
    this.at = [index, place];
    const row = this.rows[index];
    this.readout.textContent = say(row, this.cells(row)[place]);
    this.draw();
  }

  leave() {
    if (!this.at) return;
    this.at = null;
    this.idle();
    tip('');
    this.draw();
  }

  idle() {
    this.readout.textContent = 'Point at an expert, or move with the arrow keys.';
  }
}

// Text beside the pointer; with none it goes away.
function tip(text, x, y) {
  const place = byId('tip');
  place.hidden = !text;
  place.textContent = text;
  if (!text) return;
  const room = document.documentElement.clientWidth - place.offsetWidth - 8;
  place.style.left = `${Math.max(8, Math.min(x + 14, room))}px`;
  place.style.top = `${y + 18 + place.offsetHeight > innerHeight ? y - place.offsetHeight - 10 : y + 18}px`;
}
