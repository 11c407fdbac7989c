// The numbers at the top: what streams here, and what the server says of
// itself.

import { hasKey, json } from '/assets/api.js';
import { byId } from '/assets/dom.js';
import { bytes, duration } from '/assets/numbers.js';

const EVERY = 2000;

let locked = false;

// Shows the rate of the answers together, and the first token of the slowest.
export function progress(answers) {
  const rates = answers.map((answer) => answer.rate() ?? answer.final()).filter(Boolean);
  if (rates.length) show('rate', rates.reduce((sum, rate) => sum + rate, 0).toFixed(1));
  const firsts = answers.map((answer) => answer.first).filter((first) => first !== null);
  if (firsts.length) show('first', duration(Math.max(...firsts)));
}

function show(gauge, text) {
  byId(`gauge-${gauge}`).textContent = text;
}

// Asks for the state of the server from time to time while the page is seen.
export async function poll(streaming) {
  if (!document.hidden && !(locked && !hasKey())) {
    try {
      const status = await json('/v1/status', { quiet: true });
      show('memory', status.resident_bytes ? bytes(status.resident_bytes) : '–');
      const queued = status.queued ? ` + ${status.queued}` : '';
      show('flight', `${status.in_flight}${queued}`);
      byId('gauge-flight').title = queued ? `${status.queued} wait` : '';
      const own = streaming();
      if (!own.length && status.in_flight > 0 && status.tokens_per_s) show('rate', status.tokens_per_s.toFixed(1));
    } catch (error) {
      show('flight', '–');
      locked = error.status === 401;
    }
  }
  setTimeout(() => poll(streaming), EVERY);
}
