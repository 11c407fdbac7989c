// The conversation: turns of a prompt and the answers of one model or two.

import { Answer } from '/assets/answer.js';
import { announce, byId, element } from '/assets/dom.js';
import { mode, options } from '/assets/settings.js';

const EXAMPLES = {
  chat: ['Tell me a story about a cat.', 'What is a mixture of experts?', 'Write a Python function that adds two numbers.'],
  completion: ['Once upon a time', 'The capital of France is', 'def add(a, b):'],
};

// What was said, in order: { prompt, mode, answers }.
const turns = [];
let running = null;

const log = () => byId('log');

// Answers that stream at the moment.
export const streaming = () => (running ? turns.at(-1).answers : []);

// What answer `slot` of the next turn is to know: each side of a comparison
// goes on from its own answers. Turns that failed are left out.
function history(slot, system) {
  const messages = system ? [{ role: 'system', content: system }] : [];
  for (const turn of turns) {
    const answer = turn.answers[slot] ?? turn.answers[0];
    if (turn.mode !== 'chat' || !answer.text) continue;
    messages.push({ role: 'user', content: turn.prompt }, { role: 'assistant', content: answer.text });
  }
  return messages;
}

function body(asked, slot, model, prompt) {
  const { system, temperature, max_tokens } = asked;
  const common = { model, stream: true, stream_options: { include_usage: true }, temperature, max_tokens };
  if (asked.mode === 'completion') return ['/v1/completions', { ...common, prompt }];
  const messages = [...history(slot, system), { role: 'user', content: prompt }];
  return ['/v1/chat/completions', { ...common, messages }];
}

async function send(prompt, onProgress) {
  const asked = options();
  if (!asked) return;
  running = new AbortController();
  const { signal } = running;
  const completes = asked.mode === 'completion';
  const goOn = completes ? (text) => fill(text) : null;
  const answers = asked.models.map((model) => new Answer(model, completes ? prompt : '', goOn));
  const requests = asked.models.map((model, slot) => body(asked, slot, model, prompt));
  const turn = element('article', { className: answers.length > 1 ? 'turn two' : 'turn' },
    element('h3', { className: 'unseen', textContent: `Turn ${turns.length + 1}` }),
    completes ? null : element('p', { className: 'said', textContent: prompt }),
    element('div', { className: 'answers' }, ...answers.map((answer) => answer.element)));
  turns.push({ prompt, mode: asked.mode, answers });
  byId('empty').hidden = true;
  log().append(turn);
  controls();
  follow(true);
  announce('Answering');
  await Promise.all(answers.map((answer, slot) => {
    const [path, content] = requests[slot];
    return answer.run(path, content, signal, () => {
      follow(false);
      onProgress(answers);
    });
  }));
  running = null;
  controls();
  announce(answers.filter((answer) => answer.text).map((answer) => `${answer.model}: ${answer.text}`).join('. '));
}

// Keeps the end in view, unless the reader has scrolled up.
let near = true;
const scroller = () => (log().scrollHeight > log().clientHeight + 1 && getComputedStyle(log()).overflowY !== 'visible'
  ? log() : document.scrollingElement);

function follow(always) {
  const box = scroller();
  if (always || near) box.scrollTop = box.scrollHeight;
}

function watch() {
  const box = scroller();
  near = box.scrollHeight - box.scrollTop - box.clientHeight < 80;
}

export function stop() {
  running?.abort();
}

function clear() {
  stop();
  turns.length = 0;
  for (const turn of log().querySelectorAll('.turn')) turn.remove();
  byId('empty').hidden = false;
  announce('Conversation cleared');
  byId('prompt').focus();
}

function fill(text) {
  const prompt = byId('prompt');
  prompt.value = text;
  prompt.focus();
  prompt.setSelectionRange(text.length, text.length);
}

function controls() {
  const busy = running !== null;
  const stop = byId('stop');
  if (!busy && document.activeElement === stop) byId('prompt').focus();
  stop.hidden = !busy;
  byId('send').hidden = busy;
}

// What depends on the mode: names, examples.
export function present() {
  const completes = mode() === 'completion';
  byId('prompt').placeholder = completes ? 'Text to go on from' : 'Message';
  byId('prompt-label').textContent = completes ? 'Text to go on from' : 'Message';
  byId('examples').replaceChildren(...EXAMPLES[mode()].map((text) => {
    const button = element('button', { type: 'button', textContent: text });
    button.addEventListener('click', () => fill(text));
    return element('li', {}, button);
  }));
}

// Wires the composer; `onProgress` is called with the answers as they grow.
export function start(onProgress) {
  const prompt = byId('prompt');
  const submit = () => {
    const text = prompt.value;
    if (running || !text.trim()) return;
    prompt.value = '';
    send(text, onProgress);
  };
  byId('composer').addEventListener('submit', (event) => {
    event.preventDefault();
    submit();
  });
  prompt.addEventListener('keydown', (event) => {
    if (event.key === 'Enter' && !event.shiftKey && !event.isComposing) {
      event.preventDefault();
      submit();
    }
  });
  document.addEventListener('keydown', (event) => {
    if (event.key === 'Escape' && !byId('locked').open) stop();
  });
  byId('stop').addEventListener('click', stop);
  byId('clear').addEventListener('click', clear);
  log().addEventListener('scroll', watch, { passive: true });
  document.addEventListener('scroll', watch, { passive: true });
  present();
}
