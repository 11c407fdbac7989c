// What is asked of which model: the form beside the conversation.

import { hasKey, forgetKey, json, request } from '/assets/api.js';
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

// Asks the server which models there are. The engine's alias `default` is left
// out where the model has a name of its own.
export async function refresh() {
  const { data } = await json('/v1/models');
  const named = data.map(({ id }) => id).filter((id) => id !== 'default');
  const variants = await variantsOf(named);
  const labels = new Map(variants.map((variant) => [variant.id, describe(variant)]));
  const first = variants.find((variant) => variant.default)?.id;
  served = (named.length ? named : ['default']).sort((a, b) => (b === first) - (a === first));
  const model = (id) => ({ value: id, label: labels.get(id) ?? id });
  choices(byId('model'), served.map(model));
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

// What is known of variants; a server of one model may know nothing.
async function variantsOf(named) {
  if (!named.length) return [];
  try {
    return (await (await request('/v1/variants')).json()).data;
  } catch (error) {
    if (error.status === 404) return [];
    throw error;
  }
}

function describe({ id, source, pruned }) {
  if (source === 'recalibrated') return `${id} (recalibrated)`;
  return pruned === false ? `${id} (original)` : id;
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
