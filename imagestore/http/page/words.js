// Sizes, times and shares as people read them.

export function size(bytes) {
  if (bytes < 1024) return `${bytes} B`;
  let value = bytes;
  for (const unit of ["KiB", "MiB", "GiB", "TiB", "PiB"]) {
    value /= 1024;
    if (value < 1000 || unit === "PiB") return `${value < 10 ? Number(value.toFixed(1)) : Math.round(value)} ${unit}`;
  }
}

export function duration(seconds) {
  if (seconds < 0.001) return `${Math.round(seconds * 1e6)} µs`;
  if (seconds < 1) return `${Number((seconds * 1000).toPrecision(3))} ms`;
  if (seconds < 120) return `${Math.round(seconds)} s`;
  if (seconds < 7200) return `${Math.round(seconds / 60)} min`;
  if (seconds < 172800) return `${Math.round(seconds / 3600)} h`;
  return `${Math.round(seconds / 86400)} days`;
}

export function clock(text) {
  const when = new Date(text);
  const two = (number) => String(number).padStart(2, "0");
  return `${when.getFullYear()}-${two(when.getMonth() + 1)}-${two(when.getDate())} ` +
    `${two(when.getHours())}:${two(when.getMinutes())}:${two(when.getSeconds())}`;
}

export const ago = (text) => `${duration(Math.max(0, (Date.now() - new Date(text)) / 1000))} ago`;

// An age that keeps itself right: see keepAges.
export function age(text, el) {
  return text ? el("time", { datetime: text, title: clock(text) }, ago(text)) : "never";
}

export function keepAges() {
  for (const element of document.querySelectorAll("time[datetime]")) {
    const told = ago(element.dateTime);
    if (element.textContent !== told) element.textContent = told;
  }
}

export const short = (operation) => operation.slice(-8);
export const plural = (number, word) => `${number.toLocaleString("en")} ${word}${number === 1 ? "" : "s"}`;
