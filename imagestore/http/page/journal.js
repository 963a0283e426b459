// The journal: its last events, live; searched by words; and the story of a dataset.

import { byId, el, empty, setText, show, table } from "./dom.js";
import { call } from "./store.js";
import { clock, short } from "./words.js";

const LATEST = 20;
const PAGE = 50;

let wanted = null; // what was searched for; null shows the latest
let found = [];

const columns = [
  { title: "Seq", class: "seq", cell: (event) => String(event.seq) },
  { title: "Time", class: "when", cell: (event) => clock(event.time) },
  { title: "Who", cell: (event) => event.who || "–" },
  { title: "Operation", cell: (event) => (event.operation ? short(event.operation) : "–") },
  { title: "Event", cell: (event) => event.event },
  { title: "What", cell: (event) => event.what },
];

// The latest events, unless somebody reads the answer of a search.
export async function loadEvents() {
  if (wanted) return;
  const { events } = await call("SearchEvents", { limit: LATEST });
  if (wanted) return;
  byId("older").hidden = true;
  setText("events-state", "");
  show("events", events.length ? table(columns, events, "The last events") : empty("No events yet."));
}

async function searchFor(before) {
  const asked = wanted;
  const answer = await call("SearchEvents", { ...asked, limit: PAGE, before });
  if (wanted !== asked) return;
  found = before ? [...found, ...answer.events] : answer.events;
  show("events", found.length ? table(columns, found, "Events found") : empty("No such event was found."));
  setText("events-state", `${found.length} events found${answer.next ? ` back to seq ${answer.next}` : ""}; the newest first.`);
  const older = byId("older");
  older.hidden = !answer.next;
  older.onclick = () => tell(searchFor(answer.next));
}

function tell(promise) {
  promise.catch((error) => setText("events-state", error.detail || error.message));
}

export async function explain(dataset) {
  byId("explain-name").value = dataset;
  const story = byId("story");
  let told;
  try {
    told = await call("ExplainDataset", { id: dataset });
  } catch (error) {
    show("story", empty(`${dataset}: ${error.detail || error.message}`));
    story.focus();
    return;
  }
  show("story", el("h3", null, `What became of ${told.dataset}`),
    told.truncated ? empty(`Its past is long; all of it: imagestore explain ${told.dataset} --journal DIR`) : null,
    ...told.lives.flatMap((life) => lifeOf(life, "")),
    ...told.origins.flatMap((life) => lifeOf(life, "It came from ")),
    ...(told.attempts.length ? [el("h4", null, "Attempts that left nothing"), table(columns, told.attempts, "Attempts")] : []));
  story.focus();
}

function lifeOf(life, before) {
  const names = life.names.join(", then ");
  const from = life.origin ? `, a clone of ${life.origin}` : "";
  const end = life.ended ? `gone since seq ${life.ended}` : "there";
  return [el("h4", null, `${before}${names}`),
    el("p", { class: "empty" }, `${life.role}, guid ${life.guid}${from}; ${end}`), table(columns, life.events, `Events of ${names}`)];
}

export function listenToForms() {
  byId("search-form").addEventListener("submit", (event) => {
    event.preventDefault();
    wanted = { text: byId("search-text").value.trim(), who: byId("search-who").value.trim() };
    tell(searchFor(0));
  });
  byId("search-form").addEventListener("reset", () => {
    wanted = null;
    tell(loadEvents());
  });
  byId("explain-form").addEventListener("submit", (event) => {
    event.preventDefault();
    explain(byId("explain-name").value.trim());
  });
}
