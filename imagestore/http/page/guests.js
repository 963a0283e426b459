// The guests: a table that takes a thousand rows, a few per frame, and keeps each row where it is.

import { byId, command, el, empty, mark, openDetail, opener, setText, table } from "./dom.js";
import { picture } from "./lineage.js";
import { call } from "./store.js";
import { age, clock, plural, size } from "./words.js";

const PAGE = 1000;
const ROWS_PER_FRAME = 25;
const MOST_ROWS = 1000; // what a person scrolls through; the filter finds the rest

const guests = new Map();
const rows = new Map();
let filter = "";
let drawing = 0;
let explain = () => {};

export function useExplain(action) { explain = action; }

export async function loadGuests() {
  const found = new Map();
  let after = "";
  do {
    const answer = await call("DescribeGuests", { after, limit: PAGE });
    for (const guest of answer.guests) found.set(guest.id, guest);
    after = answer.next;
  } while (after);
  for (const id of guests.keys()) if (!found.has(id)) forget(id);
  for (const guest of found.values()) keep(guest);
  await draw();
}

// Look again at one guest, of which something was said.
export async function loadGuest(id) {
  try {
    const { guests: [guest] } = await call("DescribeGuests", { id });
    keep(guest);
  } catch (error) {
    if (error.message !== "not found") throw error;
    forget(id);
  }
  await draw();
}

function keep(guest) {
  guests.set(guest.id, guest);
  const told = rows.get(guest.id);
  if (told) fillRow(told, guest);
}

function forget(id) {
  guests.delete(id);
  rows.get(id)?.remove();
  rows.delete(id);
}

function fillRow(row, guest) {
  const focused = row.contains(document.activeElement);
  row.replaceChildren(
    el("th", { scope: "row" }, opener(`guest-${guest.id}`, guest.id, () => openGuest(guest.id), `Guest ${guest.id}, lineage and commands`)),
    el("td", null, guest.in_use ? mark("good", "●", "in use") : mark("", "○", "no")),
    el("td", { class: "number" }, size(guest.size_bytes)),
    el("td", { class: "number" }, size(guest.written_bytes)),
    el("td", null, origins(guest)),
    el("td", { class: "when" }, age(guest.last_snapshot, el)));
  if (focused) row.querySelector("button").focus({ preventScroll: true });
}

const origin = (disk) => disk.image || disk.origin || "blank";
const origins = (guest) => [...new Set(guest.disks.map(origin))].join(", ") || "no disks";

function matches(guest) {
  if (!filter) return true;
  return `${guest.id} ${origins(guest)} ${guest.in_use ? "in use" : ""}`.toLowerCase().includes(filter);
}

// Bring the table in line with what is known and wanted: rows in order, new ones some per frame.
async function draw() {
  const mine = ++drawing;
  const body = byId("guest-table").tBodies[0];
  const wanted = [...guests.values()].filter(matches).sort((a, b) => (a.id < b.id ? -1 : 1));
  const shown = wanted.slice(0, MOST_ROWS);
  setText("guests-count", filter ? `${wanted.length} of ${guests.size}` : String(guests.size));
  const ids = new Set(shown.map((guest) => guest.id));
  for (const [id, row] of rows) if (!ids.has(id)) { row.remove(); rows.delete(id); }
  const none = byId("guests-empty");
  none.hidden = wanted.length > 0 && wanted.length <= MOST_ROWS;
  none.textContent = wanted.length ? `${plural(wanted.length - MOST_ROWS, "more guest")}; narrow the filter to see them.`
    : guests.size ? "No guest matches the filter." : "There are no guests: imagestore guest create vm1 --disk 10G";
  let place = body.firstElementChild;
  let made = 0;
  for (const guest of shown) {
    let row = rows.get(guest.id);
    if (row && row === place) { place = place.nextElementSibling; continue; }
    if (!row) {
      if (made++ === ROWS_PER_FRAME) {
        await new Promise(requestAnimationFrame);
        if (mine !== drawing) return; // somebody draws anew
        made = 1;
        if (place && !place.isConnected) return draw();
      }
      row = el("tr", { "data-guest": guest.id });
      fillRow(row, guests.get(guest.id) ?? guest);
      rows.set(guest.id, row);
    }
    body.insertBefore(row, place);
  }
}

export function listenToFilter() {
  byId("guest-filter").addEventListener("input", (event) => {
    filter = event.target.value.trim().toLowerCase();
    draw();
  });
}

// -- one guest ------------------------------------------------------------------------

async function openGuest(id) {
  let guest;
  try {
    ({ guests: [guest] } = await call("DescribeGuests", { id }));
  } catch (error) {
    openDetail(`Guest ${id}`, empty(error.message));
    return;
  }
  openDetail(`Guest ${id}`, ...guest.disks.flatMap(diskDetail),
    el("h3", null, "To change it"), command(`imagestore snap create guests/${id}@NAME`),
    command(`imagestore snap rollback guests/${id}@NAME`), command(`imagestore guest rm ${id}`));
}

function diskDetail(disk) {
  const name = disk.id.slice(disk.id.indexOf("/") + 1);
  const from = disk.origin ? `clone of ${disk.origin}` : "made blank";
  return [
    el("h3", null, name),
    picture(disk),
    el("p", null, `${size(disk.size_bytes)}, ${size(disk.written_bytes)} written, ${from}; ${disk.in_use ? "in use" : "not in use"}. `,
      el("code", null, disk.device), " ",
      el("button", { type: "button", onclick: () => { byId("detail").close(); explain(name); }, "aria-label": `Explain ${name}` }, "Explain")),
    disk.snapshots.length ? table([
      { title: "Snapshot", cell: (snapshot) => snapshot.id.slice(snapshot.id.indexOf("/") + 1) },
      { title: "Taken", class: "when", cell: (snapshot) => clock(snapshot.taken) },
      { title: "Written", number: true, cell: (snapshot) => size(snapshot.written_bytes) },
      { title: "To remove it", cell: (snapshot) => el("code", null, `imagestore snap rm ${snapshot.id.slice(snapshot.id.indexOf("/") + 1)}`) },
    ], disk.snapshots.toReversed(), `Snapshots of ${name}`) : empty("No snapshots."),
  ];
}
