// Requests to the server that sent this page, and nowhere else.

const STORED = 'mistralrs-prune-key';

// What went wrong, in words for people.
export class Failure extends Error {
  constructor(message, status) {
    super(message);
    this.status = status;
  }
}

let askForKey = async () => null;
let asking = null;

// `ask(again)` is called when the server wants an API key, and gives one or
// null; `again` says that the last one was wrong.
export function whenLocked(ask) {
  askForKey = ask;
}

export const hasKey = () => sessionStorage.getItem(STORED) !== null;
export const forgetKey = () => sessionStorage.removeItem(STORED);

async function unlock(used) {
  // Someone else has asked meanwhile.
  if (sessionStorage.getItem(STORED) !== used) return true;
  asking ??= askForKey(used !== null).finally(() => { asking = null; });
  const key = await asking;
  if (key === null) return false;
  sessionStorage.setItem(STORED, key);
  return true;
}

// A response that is good; anything else is a Failure.
export async function request(path, { body, signal, quiet = false } = {}) {
  for (;;) {
    const key = sessionStorage.getItem(STORED);
    const headers = {};
    if (key !== null) headers.authorization = `Bearer ${key}`;
    if (body) headers['content-type'] = 'application/json';
    let response;
    try {
      response = await fetch(path, {
        method: body ? 'POST' : 'GET',
        headers,
        body: body && JSON.stringify(body),
        signal,
        cache: 'no-store',
      });
    } catch (error) {
      if (error.name === 'AbortError') throw error;
      throw new Failure('The server cannot be reached. Is it still running?', 0);
    }
    if (response.ok) return response;
    if (response.status === 401 && !quiet && await unlock(key)) continue;
    throw new Failure(await explain(response), response.status);
  }
}

export const json = async (path, options) => (await request(path, options)).json();

async function explain(response) {
  const text = await response.text();
  let message = text.trim();
  try {
    const said = JSON.parse(text);
    message = said.error?.message ?? message;
  } catch {
    // Not JSON: what it says is the message.
  }
  message ||= response.statusText || 'no reason given';
  const wait = response.headers.get('retry-after');
  const again = wait ? ` Try again in ${wait} s.` : '';
  return `${message}${/[.!?]$/.test(message) ? '' : '.'}${again} (status ${response.status})`;
}

// The data of server-sent events, one by one, until `[DONE]` or the end.
export async function* events(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = '';
  try {
    for (;;) {
      const { done, value } = await reader.read();
      rest += (value ?? '').replaceAll('\r', '');
      const whole = rest.split('\n\n');
      rest = done ? '' : whole.pop();
      for (const event of whole) {
        const data = event.split('\n')
          .filter((line) => line.startsWith('data:'))
          .map((line) => line.slice(5).replace(/^ /, ''))
          .join('\n');
        if (data === '[DONE]') return;
        if (data) yield data;
      }
      if (done) return;
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}
