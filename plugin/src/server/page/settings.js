// What is asked of which model: the form beside the conversation.

import { hasKey, forgetKey, json } from '/assets/api.js';
import { byId, choices, problem } from '/assets/dom.js';

const ABOUT = {
  chat: 'Turns, through the chat template of the model.',
  completion: 'Goes on from your text as it is. For models that were not taught to chat.',
};

const NARROW = matchMedia('(max-width: 800px)');

// Ids of the models that are served, the default first.
let served = [];

export const models = () => served;
export const mode = () => document.querySelector('input[name=mode]:checked').value;

const number = (id) => (byId(id).value === '' ? undefined : Number(byId(id).value));

// What the form says, or null if it says something impossible.
export function options() {
  const form = byId('options');
  if (!form.checkValidity()) {
    byId('settings').open = true;
    form.reportValidity();
    return null;
  }
  const chosen = [byId('model').value, byId('beside').value];
  return {
    mode: mode(),
    models: chosen.filter(Boolean),
    system: byId('system').value.trim(),
    temperature: number('temperature'),
    max_tokens: number('max-tokens'),
  };
}

// Asks the server which models there are.
export async function refresh() {
  const { data } = await json('/v1/variants');
  served = data.map(({ id }) => id);
  choices(byId('model'), data.map((variant) => ({ value: variant.id, label: describe(variant) })));
  besides();
  byId('forget-key').hidden = !hasKey();
  return served;
}

// What the second chooser offers: every model but the first chooser's.
function besides() {
  const others = served.filter((id) => id !== byId('model').value);
  const labels = new Map(Array.from(byId('model').options, (option) => [option.value, option.textContent]));
  choices(byId('beside'), [{ value: '', label: 'None' }, ...others.map((id) => ({ value: id, label: labels.get(id) }))]);
  byId('beside').disabled = others.length === 0;
  byId('beside-about').hidden = others.length > 0;
}

function describe({ id, source, pruned }) {
  if (source === 'recalibrated') return `${id} (recalibrated)`;
  return pruned ? id : `${id} (original)`;
}

// Wires the form; `changed` is called when the mode is another.
export function start(changed) {
  const present = () => {
    byId('mode-about').textContent = ABOUT[mode()];
    byId('system-field').hidden = mode() !== 'chat';
  };
  byId('options').addEventListener('submit', (event) => event.preventDefault());
  for (const radio of document.querySelectorAll('input[name=mode]')) {
    radio.addEventListener('change', () => {
      present();
      changed();
    });
  }
  byId('model').addEventListener('change', besides);
  for (const id of ['model', 'beside']) {
    byId(id).addEventListener('focus', () => refresh().catch((error) => problem(error.message)));
  }
  byId('forget-key').addEventListener('click', () => {
    forgetKey();
    location.reload();
  });
  const fold = () => { byId('settings').open = !NARROW.matches; };
  NARROW.addEventListener('change', fold);
  fold();
  present();
}
