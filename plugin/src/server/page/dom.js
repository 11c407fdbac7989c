// Elements of the page. Text is only ever set as text, never as HTML.

export const byId = (id) => document.getElementById(id);

// An element with properties and children; text children become text nodes.
export function element(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name in made) made[name] = value;
    else made.setAttribute(name, value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

// Tells a screen reader, once.
export function announce(text) {
  byId('announce').textContent = text;
}

// Says at the top of the page what is wrong, or with nothing that it is over.
export function problem(text) {
  const place = byId('problem');
  place.textContent = text ?? '';
  place.hidden = !text;
}

// Replaces the options of a chooser if they differ, and keeps what was chosen.
export function choices(select, options) {
  const wanted = JSON.stringify(options);
  if (select.dataset.options === wanted) return;
  select.dataset.options = wanted;
  const chosen = select.value;
  select.replaceChildren(...options.map(({ value, label }) => element('option', { value, textContent: label })));
  if (options.some(({ value }) => value === chosen)) select.value = chosen;
}

// Copies text. Pages that did not come over TLS or from this machine have no
// clipboard of their own, so there a selection is copied.
export async function copy(text) {
  if (navigator.clipboard) {
    await navigator.clipboard.writeText(text);
    return;
  }
  const area = element('textarea', { value: text, className: 'unseen' });
  document.body.append(area);
  area.select();
  const done = document.execCommand('copy');
  area.remove();
  if (!done) throw new Error('the browser refuses to copy');
}
