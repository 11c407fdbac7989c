// One answer of one model: its request, what streams in, and how fast.

import { events, Failure, request } from '/assets/api.js';
import { copy, element } from '/assets/dom.js';
import { duration } from '/assets/numbers.js';

const WINDOW = 3000;

export class Answer {
  // `model` answers; `given` is text that it goes on from, if it does.
  constructor(model, given, onContinue) {
    this.model = model;
    this.given = given;
    this.text = '';
    this.failed = false;
    this.tokens = 0;
    this.times = [];
    this.first = null;
    this.words = element('span');
    this.meter = element('p', { className: 'meter', textContent: 'waiting' });
    this.body = element('div', { className: 'text' },
      given ? element('span', { className: 'given', textContent: given }) : null, this.words);
    this.tools = element('div', { className: 'tools', hidden: true },
      this.button('Copy', (button) => this.copy(button)),
      onContinue && this.button('Continue', () => onContinue(given + this.text)));
    this.element = element('section', { className: 'answer', 'aria-label': `Answer of ${model}` },
      element('h4', { textContent: model }), this.meter, this.body, this.tools);
  }

  button(label, action) {
    const button = element('button', { type: 'button', className: 'small', textContent: label });
    button.addEventListener('click', () => action(button));
    return button;
  }

  async copy(button) {
    try {
      await copy((this.given ?? '') + this.text);
      button.textContent = 'Copied';
    } catch {
      button.textContent = 'Cannot copy';
    }
    setTimeout(() => { button.textContent = 'Copy'; }, 1500);
  }

  // Asks, and shows what comes until it ends, fails or is stopped. Calls
  // `grew` after every piece.
  async run(path, body, signal, grew) {
    const started = performance.now();
    let how = '';
    this.element.setAttribute('aria-busy', 'true');
    try {
      const response = await request(path, { body, signal });
      for await (const data of events(response)) {
        const finish = this.take(data, started);
        how = finish === 'length' ? 'stopped at the most tokens' : how;
        this.meter.textContent = this.describe();
        grew();
      }
      if (!this.text) how = 'empty answer';
    } catch (error) {
      if (error.name === 'AbortError') how = 'stopped';
      else this.fail(error);
    }
    this.took = performance.now() - started;
    this.times = [];
    this.element.setAttribute('aria-busy', 'false');
    this.tools.hidden = !this.text;
    this.meter.textContent = [this.describe(), how].filter(Boolean).join(' · ') || (this.failed ? 'failed' : '');
    grew();
  }

  // Takes in an event; gives the reason of the end if it is the last.
  take(data, started) {
    const event = JSON.parse(data);
    if (event.error) throw new Failure(event.error.message, 200);
    const choice = event.choices?.[0];
    const piece = choice?.delta?.content ?? choice?.text ?? '';
    const thought = choice?.delta?.reasoning_content ?? '';
    if (piece || thought) {
      const now = performance.now();
      this.first ??= now - started;
      this.tokens += 1;
      this.times.push(now);
    }
    if (thought) this.think(thought);
    if (piece) {
      this.text += piece;
      this.words.append(piece);
    }
    // A piece may have several tokens; the last event has their number.
    if (event.usage) this.tokens = event.usage.completion_tokens;
    return choice?.finish_reason;
  }

  think(piece) {
    if (!this.thought) {
      this.thought = element('p');
      this.body.before(element('details', { className: 'thought' },
        element('summary', { textContent: 'Reasoning' }), this.thought));
    }
    this.thought.append(piece);
  }

  fail(error) {
    this.failed = true;
    this.body.hidden = !this.text && !this.given;
    const advice = error.message.includes('chat template') ? ' The completion mode needs none.' : '';
    this.body.after(element('p', { className: 'problem', role: 'alert', textContent: error.message + advice }));
  }

  // Tokens a second over the last seconds, or null while nothing can be said.
  rate() {
    const since = performance.now() - WINDOW;
    while (this.times.length > 2 && this.times[0] < since) this.times.shift();
    if (this.times.length < 2) return null;
    const span = this.times.at(-1) - this.times[0];
    return span > 0 ? (this.times.length - 1) / span * 1000 : null;
  }

  describe() {
    const rate = this.rate() ?? this.final();
    if (rate !== null) this.last = rate;
    const parts = [];
    if (this.last) parts.push(`${this.last.toFixed(1)} tokens/s`);
    if (this.first !== null) parts.push(`first token ${duration(this.first)}`);
    if (this.tokens) parts.push(`${this.tokens} token${this.tokens === 1 ? '' : 's'}`);
    return parts.join(' · ');
  }

  // The rate of the whole answer.
  final() {
    const time = this.took - this.first;
    return this.first !== null && time > 0 && this.tokens > 1 ? (this.tokens - 1) / time * 1000 : null;
  }
}
