// The store as the page asks it: calls, and the event feed with a place that outlasts disconnections.
// The feed is read by fetch and not by EventSource, which can send no token and gives up when
// a store that starts answers 503.

const RPC = "/_mistify_RPC_";
const SILENCE_MS = 40000; // the store sends a comment after 15 s without an event
const LONGEST_PAUSE_MS = 4000;

let token = "";
let number = 0;

export class Refused extends Error {
  constructor(message, { status = 200, detail = "" } = {}) {
    super(message);
    this.status = status;
    this.detail = detail;
  }
}

export function setToken(text) { token = text; }

const headers = (more) => (token ? { ...more, Authorization: `Bearer ${token}` } : { ...more });

async function refusal(response) {
  const problem = await response.json().catch(() => ({}));
  return new Refused(problem.title ?? `HTTP ${response.status}`, { status: response.status, detail: problem.detail ?? "" });
}

// Call a method; it only ever is one that reads. Raises Refused, or TypeError while the store is away.
export async function call(method, params = {}) {
  const body = JSON.stringify({ jsonrpc: "2.0", id: ++number, method: `ImageStore.${method}`, params });
  const response = await fetch(RPC, { method: "POST", body, headers: headers({ "Content-Type": "application/json" }) });
  if (!response.ok) throw await refusal(response);
  const answer = await response.json();
  if (answer.error) throw new Refused(answer.error.message, { detail: answer.error.data?.detail ?? "" });
  return answer.result;
}

// Follow the feed behind event `seq`, for ever. `on.event({seq, type, envelope})` for each, in order;
// `on.open()` and `on.lost(error)` as the connection comes and goes. Returns when access is refused.
export async function follow(seq, on) {
  let last = seq;
  let pause = 500;
  for (;;) {
    try {
      await read(last, (place) => { last = place; pause = 500; }, on);
      on.lost(null);
    } catch (error) {
      if (error.status === 401 || error.status === 403) return on.refused(error);
      if (error.status === 400) return on.foreign(error); // our place is not in this journal: another store
      on.lost(error);
    }
    await new Promise((resolve) => setTimeout(resolve, pause));
    pause = Math.min(2 * pause, LONGEST_PAUSE_MS);
  }
}

async function read(last, at, on) {
  const stop = new AbortController();
  let watch = setTimeout(() => stop.abort(), SILENCE_MS);
  try {
    const response = await fetch("/events", {
      headers: headers({ Accept: "text/event-stream", "Last-Event-ID": String(last) }), signal: stop.signal, cache: "no-store" });
    if (!response.ok) throw await refusal(response);
    on.open();
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    let text = "";
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      clearTimeout(watch);
      watch = setTimeout(() => stop.abort(), SILENCE_MS);
      const blocks = (text + value).split("\n\n");
      text = blocks.pop();
      for (const block of blocks) take(block, at, on);
    }
  } finally {
    clearTimeout(watch);
    stop.abort();
  }
}

function take(block, at, on) {
  const fields = {};
  for (const line of block.split("\n")) {
    const colon = line.indexOf(": ");
    if (colon > 0) fields[line.slice(0, colon)] = line.slice(colon + 2);
  }
  if (fields.data) on.event({ seq: Number(fields.id), type: fields.event, envelope: JSON.parse(fields.data) });
  if (fields.id) at(Number(fields.id));
}
