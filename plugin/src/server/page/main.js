// Starts the page: which view is seen, and what is asked first.

import { whenLocked } from '/assets/api.js';
import * as chat from '/assets/chat.js';
import { byId, problem } from '/assets/dom.js';
import { poll, progress } from '/assets/gauges.js';
import { askForKey } from '/assets/locked.js';
import * as pruning from '/assets/pruning.js';
import * as settings from '/assets/settings.js';

const VIEWS = ['chat', 'pruning'];

// Shows the view that the address names.
function view() {
  const name = VIEWS.find((view) => `#${view}` === location.hash) ?? VIEWS[0];
  for (const other of VIEWS) {
    const link = document.querySelector(`nav a[href="#${other}"]`);
    byId(other).hidden = other !== name;
    if (other === name) link.setAttribute('aria-current', 'page');
    else link.removeAttribute('aria-current');
  }
  document.body.classList.toggle('chatting', name === 'chat');
  scrollTo(0, 0);
  if (name === 'pruning') pruning.show();
}

async function start() {
  whenLocked(askForKey);
  settings.start(chat.present);
  chat.start(progress);
  pruning.start();
  try {
    const [first, ...others] = await settings.refresh();
    byId('serving').textContent = others.length ? `${first} +${others.length}` : first;
  } catch (error) {
    problem(error.message);
  }
  addEventListener('hashchange', view);
  view();
  poll(chat.streaming);
}

start();
