// The page's life: look at everything once, then follow the event feed and look again at what an event
// touches. Nothing is asked at intervals but what no event tells: the progress of transfers while some
// run, and once a minute which guests are in use.

import { byId, setText } from "./dom.js";
import { listenToFilter, loadGuest, loadGuests, useExplain } from "./guests.js";
import { loadDrift, loadImage, loadImages } from "./images.js";
import { explain, listenToForms, loadEvents } from "./journal.js";
import { call, follow, setToken } from "./store.js";
import { showCondition, showStatus } from "./summary.js";
import { clock, keepAges } from "./words.js";

const GATHER_MS = 200; // events come in groups
const PROGRESS_MS = 1000;
const USE_MS = 60000;
const AGAIN_MS = 3000; // after a look that failed
const FEW = 20; // more things touched than these are looked at all together

const touched = { guests: new Set(), images: new Set(), everything: false };
const ofOperation = new Map(); // what an operation under way has touched, for its end
let gathering = 0;
let looking = false;
let again = false;
let lastSeen = 0;

// -- what an event touches --------------------------------------------------------------

function* texts(value) {
  if (typeof value === "string") yield value;
  else if (value && typeof value === "object") for (const each of Object.values(value)) yield* texts(each);
}

export function subjects(event) {
  const found = { guests: new Set(), images: new Set() };
  for (const text of texts(event)) {
    const name = /^(guests|images)\/([^/@]+)/.exec(text);
    if (name) found[name[1]].add(name[2]);
  }
  if (event.guest) found.guests.add(event.guest);
  if (event.image) found.images.add(event.image);
  return found;
}

function take({ envelope }) {
  const about = subjects(envelope.event);
  const { operation } = envelope;
  if (operation) {
    const before = ofOperation.get(operation) ?? { guests: new Set(), images: new Set() };
    for (const kind of ["guests", "images"]) {
      for (const id of about[kind]) before[kind].add(id);
      for (const id of before[kind]) touched[kind].add(id);
    }
    if (envelope.event.event === "operation-finished") ofOperation.delete(operation);
    else if (ofOperation.size < 1000) ofOperation.set(operation, before);
  }
  for (const kind of ["guests", "images"]) for (const id of about[kind]) touched[kind].add(id);
  soon();
}

function soon() {
  if (looking) again = true;
  else if (!gathering) gathering = setTimeout(look, GATHER_MS);
}

async function look() {
  gathering = 0;
  looking = true;
  const { everything } = touched;
  const guests = [...touched.guests];
  const images = [...touched.images];
  touched.guests.clear();
  touched.images.clear();
  touched.everything = false;
  try {
    await loadStatus();
    await loadEvents();
    if (everything || images.length > FEW) await loadImages();
    else for (const id of images) await loadImage(id);
    if (everything || guests.length > FEW) await loadGuests();
    else for (const id of guests) await loadGuest(id);
    await loadDrift();
  } catch (error) {
    // The feed finds out, too, and says so; when it is back everything is looked at.
    if (!(error instanceof TypeError)) console.warn(error.message);
    touched.everything = true;
    setTimeout(soon, AGAIN_MS);
  }
  looking = false;
  if (again) { again = false; soon(); }
}

let progressTimer = 0;

async function loadStatus() {
  const { status } = await call("GetStatus");
  lastSeen = Date.now();
  showStatus(status);
  clearTimeout(progressTimer);
  if (status.running.length && !document.hidden) progressTimer = setTimeout(progressed, PROGRESS_MS);
  return status;
}

async function progressed() {
  try {
    const status = await loadStatus();
    for (const operation of status.running) {
      const image = /\/images\/([^/@]+)/.exec(operation.subject);
      if (image && operation.progress) await loadImage(image[1]);
    }
  } catch { /* the feed says so */ }
}

// -- the connection -----------------------------------------------------------------------

function connection(state, text) {
  byId("connection").dataset.state = state;
  setText("connection", text);
}

function lost(error) {
  connection("lost", "✕ not connected, trying again");
  const since = lastSeen ? `What is shown is as of ${clock(lastSeen)}.` : "";
  const why = error && error.status ? `The store says: ${error.detail || error.message}.` : "The store does not answer.";
  showCondition({ level: "lost", reason: `${why} ${since}`.trim(), next: "systemctl status imagestore.service", findings: [] });
  document.title = "NOT CONNECTED · imagestore";
}

const feed = {
  event: take,
  open() {
    connection("live", "● live");
    touched.everything = true;
    soon();
  },
  lost,
  refused: askForToken,
  foreign() { start(); },
};

async function start() {
  byId("access").hidden = true;
  for (let pause = 500; ; pause = Math.min(2 * pause, 4000)) {
    try {
      const status = await loadStatus();
      follow(status.journal.seq, feed);
      return;
    } catch (error) {
      if (error.status === 401 || error.status === 403 || error.status === 429) return askForToken(error);
      lost(error);
    }
    await new Promise((resolve) => setTimeout(resolve, pause));
  }
}

function askForToken(error) {
  connection("lost", "✕ not let in");
  setText("access-reason", [error.message, error.detail].filter(Boolean).join(": "));
  byId("access").hidden = false;
  byId("token").focus();
}

byId("token-form").addEventListener("submit", (event) => {
  event.preventDefault();
  setToken(byId("token").value.trim());
  byId("token").value = "";
  start();
});

useExplain(explain);
listenToFilter();
listenToForms();
setInterval(keepAges, 30000);
setInterval(() => { if (!document.hidden) { touched.everything = true; soon(); } }, USE_MS);
document.addEventListener("visibilitychange", () => { if (!document.hidden) soon(); });
start();
