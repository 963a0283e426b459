// Elements made of text, never of markup: whatever the store says stays text.

const SVG = "http://www.w3.org/2000/svg";

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return element;
}

export const el = (tag, attributes, ...children) => fill(document.createElement(tag), attributes, children);
export const svg = (tag, attributes, ...children) => fill(document.createElementNS(SVG, tag), attributes, children);
export const byId = (id) => document.getElementById(id);

export function setText(id, text) {
  const element = byId(id);
  if (element.textContent !== text) element.textContent = text; // an announcement each, so only what is new
}

// Replace what an element holds; the focus stays where it was if that place is there again (data-key).
export function show(id, ...children) {
  const holder = byId(id);
  const focused = holder.contains(document.activeElement) ? document.activeElement.dataset.key : undefined;
  holder.replaceChildren(...children.flat().filter((child) => child !== null && child !== undefined));
  if (focused) holder.querySelector(`[data-key="${CSS.escape(focused)}"]`)?.focus({ preventScroll: true });
}

// A name that opens its details.
export const opener = (key, text, action, label) =>
  el("button", { type: "button", class: "plain", "data-key": key, "aria-haspopup": "dialog", "aria-label": label, onclick: action }, text);

export function openDetail(title, ...children) {
  setText("detail-title", title);
  show("detail-body", ...children);
  const dialog = byId("detail");
  if (!dialog.open) dialog.showModal();
}

export function table(columns, rows, caption) {
  const head = columns.map((column) => el("th", { scope: "col", class: column.number ? "number" : null }, column.title));
  return el("table", null,
    caption ? el("caption", { class: "visually-hidden" }, caption) : null,
    el("thead", null, el("tr", null, ...head)),
    el("tbody", null, ...rows.map((row) => el("tr", null, ...columns.map((column, index) => {
      const kind = [column.number ? "number" : "", column.class ?? ""].join(" ").trim() || null;
      return index === 0 ? el("th", { scope: "row", class: kind }, column.cell(row)) : el("td", { class: kind }, column.cell(row));
    })))));
}

export const empty = (text) => el("p", { class: "empty" }, text);

// A state in words, with a mark; the colour only repeats it.
export const mark = (kind, sign, text) =>
  el("span", { class: `mark ${kind}` }, el("span", { "aria-hidden": "true" }, `${sign} `), text);

// A command to be typed elsewhere: the page itself changes nothing.
export function command(text) {
  const line = el("p", { class: "command" }, el("code", null, text));
  if (navigator.clipboard) {
    const said = el("span", { role: "status" });
    const copy = el("button", { type: "button", "aria-label": `Copy the command ${text}`,
      onclick: () => navigator.clipboard.writeText(text).then(
        () => { said.textContent = " copied"; }, () => { said.textContent = " not copied; select it by hand"; }) }, "Copy");
    line.append(" ", copy, said);
  }
  return line;
}
