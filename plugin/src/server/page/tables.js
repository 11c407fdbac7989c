// Tables with bars: what each layer does and keeps, what each text loses.

import { element } from '/assets/dom.js';
import { change, number, percent } from '/assets/numbers.js';

const heading = (...cells) => element('thead', {}, element('tr', {}, ...cells.map(([text, wide]) => {
  const cell = element('th', { scope: 'col', textContent: text });
  if (wide) cell.className = 'wide';
  return cell;
})));

const table = (caption, head, rows, kind) => element('div', { className: 'scroll', tabIndex: 0, role: 'region', 'aria-label': caption },
  element('table', { className: kind }, element('caption', { textContent: caption }), head, element('tbody', {}, ...rows)));

const name = (text) => element('th', { scope: 'row', textContent: text });

// A number with a bar of its share.
function bar(text, share) {
  const fill = element('span', { className: 'fill', hidden: !(share > 0) });
  fill.style.width = `${Math.min(share, 1) * 100}%`;
  return element('td', { className: 'wide' }, element('div', { className: 'bar' },
    element('span', { className: 'value', textContent: text }), element('span', { className: 'track' }, fill)));
}

// Block influence of every layer and the experts it keeps. What is dropped
// says so.
export function layers(plan) {
  const most = Math.max(...plan.layers.map((layer) => layer.block_influence), 0);
  const rows = plan.layers.map((layer) => {
    const skipped = layer.skipped ?? {};
    const parts = ['attention', 'mlp'].filter((part) => skipped[part]);
    const gone = layer.dropped ? 'dropped' : parts.length ? `no ${parts.join(', no ')}` : '';
    const [kept, experts] = [layer.kept.length, layer.scores.length];
    const tag = gone ? element('span', { className: 'tag', textContent: gone }) : null;
    const stays = experts && !layer.dropped && !skipped.mlp
      ? bar(`${kept} of ${experts}`, kept / experts) : element('td', { className: 'wide' }, gone ? '' : 'dense');
    if (tag) stays.append(tag);
    return element('tr', { className: layer.dropped ? 'gone' : '' },
      name(String(layer.layer)), bar(number(layer.block_influence), most > 0 ? layer.block_influence / most : 0), stays);
  });
  return table('Layers of the original model', heading(['layer'], ['block influence', true], ['experts kept', true]), rows, 'layers');
}

// Perplexity of every text before and after, and the change with its interval.
export function losses(report) {
  const after = report.variants[0];
  const texts = report.provenance.domains.filter((domain) => after.domains[domain.name]).map((domain) => ({
    name: domain.name,
    before: report.reference.domains[domain.name],
    after: after.domains[domain.name],
  }));
  if (texts.length > 1) texts.push({ name: 'all together', before: report.reference.all, after: after.all });
  const changes = texts.map((text) => text.after.perplexity_change).filter(Boolean);
  const ends = changes.flatMap(({ value, low, high }) => [value, low ?? value, high ?? value]);
  const [least, most] = [Math.min(0, ...ends), Math.max(0, ...ends)];
  const at = (value) => `${(most > least ? (value - least) / (most - least) : 0) * 100}%`;
  const rows = texts.map((text) => {
    const { perplexity_change: loss, perplexity, top1_agreement: agreement } = text.after;
    const cell = element('td', { textContent: loss ? change(loss.value) : '–' });
    if (loss && loss.low !== null) cell.append(element('small', { textContent: `${change(loss.low)} to ${change(loss.high)}` }));
    return element('tr', {},
      name(text.name),
      element('td', { textContent: number(text.before.perplexity?.value ?? NaN) }),
      element('td', { textContent: number(perplexity?.value ?? NaN) }),
      cell,
      element('td', { textContent: agreement ? percent(agreement.value) : '–' }),
      interval(loss, at));
  });
  const confidence = `${report.provenance.bootstrap.confidence * 100}%`;
  return table(`Perplexity on held-out text; intervals of ${confidence}`,
    heading(['text'], ['before'], ['after'], ['change'], ['same top token'], ['', true]), rows, 'losses');
}

function interval(loss, at) {
  const track = element('span', { className: 'track' });
  const put = (kind, place, until) => {
    const mark = element('span', { className: kind });
    mark.style.left = at(place);
    if (until !== undefined) mark.style.width = `calc(${at(until)} - ${at(place)})`;
    track.append(mark);
  };
  if (loss) {
    put('zero', 0);
    if (loss.low !== null) put('span', loss.low, loss.high);
    put('dot', loss.value);
  }
  const cell = element('td', { className: 'wide' }, element('div', { className: 'bar' }, track));
  cell.setAttribute('aria-hidden', 'true');
  return cell;
}
