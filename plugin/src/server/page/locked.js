// The dialog that asks for the API key of the server.

import { byId } from '/assets/dom.js';

const ABOUT = 'It is kept in this tab only, until you close it.';

// Gives what was typed, or null if nobody wanted to. `again` says that the
// last key was wrong.
export function askForKey(again) {
  const dialog = byId('locked');
  const about = byId('locked-about');
  about.textContent = again ? 'That key is not the right one. Try again.' : ABOUT;
  about.classList.toggle('problem', again);
  byId('key').value = '';
  dialog.showModal();
  byId('key').focus();
  return new Promise((done) => {
    let typed = null;
    byId('unlock').onsubmit = (event) => {
      event.preventDefault();
      typed = byId('key').value;
      dialog.close();
    };
    byId('lock-cancel').onclick = () => dialog.close();
    dialog.onclose = () => {
      byId('key').value = '';
      done(typed);
    };
  });
}
