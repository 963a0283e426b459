// State, pool, operations and the journal's figures: what GetStatus tells.

import { command, el, empty, mark, openDetail, opener, setText, show, svg, table, byId } from "./dom.js";
import { age, clock, duration, plural, short, size } from "./words.js";

const LEVELS = { "ok": ["✓", "OK"], "attention": ["!", "ATTENTION"], "read-only": ["✕", "READ-ONLY"], "lost": ["?", "NOT CONNECTED"] };

export function showCondition({ level, reason, next, findings }) {
  const [sign, word] = LEVELS[level];
  byId("condition").dataset.level = level;
  setText("level-mark", sign);
  setText("level", word);
  setText("reason", reason || "Everything is as it should be.");
  setText("next", next);
  byId("next-line").hidden = !next;
  show("more-findings", findings.slice(1).map((finding) =>
    el("li", null, finding.reason, finding.next ? [" ", el("code", null, finding.next)] : [])));
}

export function showStatus(status) {
  showCondition(status.condition);
  setText("version", status.version);
  setText("pool-name", `imagestore: ${status.pool.name}`);
  document.title = `${LEVELS[status.condition.level][1]} · ${status.pool.name} · imagestore`;
  showPool(status.pool);
  showJournal(status.journal);
  show("running", operations(status.running, status.running_total, "Nothing is under way."));
  show("failures", failures(status.failures, status.failures_total));
}

function showPool(pool) {
  const known = pool.size_bytes > 0;
  const percent = (bytes) => Math.round((100 * bytes) / pool.size_bytes);
  const well = pool.health === "ok";
  show("pool-health", mark(well ? "good" : "bad", well ? "✓" : "✕", well ? `ok, ${pool.driver}` : pool.health));
  setText("pool-used", known ? `${size(pool.used_bytes)} of ${size(pool.size_bytes)} (${percent(pool.used_bytes)} %)` : "–");
  setText("pool-left", known ? size(pool.available_bytes) : "–");
  setText("pool-promised", known ? size(pool.promised_bytes) + (pool.reserved_bytes ? `, ${size(pool.reserved_bytes)} set aside` : "") : "–");
  setText("pool-free", known ? size(pool.free_bytes) : "–");
  if (!known) return show("pool-bar");
  const used = percent(pool.used_bytes);
  const promised = Math.min(100 - used, percent(pool.promised_bytes + pool.reserved_bytes));
  show("pool-bar", svg("svg", { class: "bar", role: "img", viewBox: "0 0 100 4", preserveAspectRatio: "none",
    "aria-label": `${used} percent used, ${promised} percent promised` },
    svg("rect", { class: "used", width: used, height: 4 }), svg("rect", { class: "promised", x: used, width: promised, height: 4 })));
}

function showJournal(journal) {
  setText("journal-seq", journal.seq.toLocaleString("en"));
  setText("journal-p99", journal.flush_p99_seconds === null ? "none yet"
    : `≤ ${duration(journal.flush_p99_seconds)}, last ${duration(journal.last_flush_seconds)}`);
  setText("journal-epoch", String(journal.epoch));
  setText("journal-head", journal.head);
}

// -- operations ----------------------------------------------------------------------

const progressOf = (operation) => {
  const { progress } = operation;
  if (!progress) return operation.phase || operation.status;
  const { done_bytes: done, total_bytes: total } = progress;
  if (!total) return `${operation.phase} ${size(done)}`.trim();
  const percent = Math.floor((100 * done) / total);
  return [`${operation.phase} ${percent} % `.trimStart(),
    el("progress", { max: total, value: done, "aria-label": `${operation.method} ${operation.subject}` })];
};

const remaining = ({ progress, rate }) =>
  (progress?.total_bytes && rate ? duration((progress.total_bytes - progress.done_bytes) / rate) : "–");

const named = (operation) => opener(`op-${operation.id}`, operation.method, () => openOperation(operation),
  `${operation.method} ${operation.subject}, details`);

function operations(running, total, none) {
  if (!running.length) return [empty(none)];
  const rows = table([
    { title: "Operation", cell: named },
    { title: "Of", cell: (operation) => operation.subject || "–" },
    { title: "Who", cell: (operation) => operation.who || "–" },
    { title: "Phase", cell: progressOf },
    { title: "Rate", number: true, cell: ({ rate }) => (rate ? `${size(rate)}/s` : "–") },
    { title: "Left", number: true, cell: remaining },
  ], running, "Operations under way");
  return total > running.length ? [rows, empty(`and ${plural(total - running.length, "more operation")}: imagestore op ls --status running`)] : [rows];
}

function failures(failed, total) {
  if (!failed.length) return [empty("Nothing failed.")];
  const rows = table([
    { title: "Operation", cell: named },
    { title: "Of", cell: (operation) => operation.subject || "–" },
    { title: "Why", cell: (operation) => mark("bad", "✕", operation.error ?? "unknown") },
    { title: "When", class: "when", cell: (operation) => age(operation.finished, el) },
  ], failed, "Operations that failed within a day");
  return total > failed.length ? [rows, empty(`and ${plural(total - failed.length, "more failure")}: imagestore op ls --status failed --since 1d`)] : [rows];
}

function openOperation(operation) {
  const facts = { Id: operation.id, Of: operation.subject, Who: operation.who, State: operation.status, Why: operation.error,
    Began: operation.started && clock(operation.started), Ended: operation.finished && clock(operation.finished),
    "Events": operation.seq ? `from ${operation.seq}${operation.lastSeq ? ` to ${operation.lastSeq}` : ""}` : null };
  openDetail(`${operation.method} ${short(operation.id)}`,
    el("dl", { class: "facts" }, ...Object.entries(facts).filter(([, value]) => value).map(([name, value]) =>
      el("div", null, el("dt", null, name), el("dd", null, value)))),
    command(`imagestore op show ${operation.id}`),
    operation.cancellable ? command(`imagestore op cancel ${operation.id}`) : null);
}
