// The images, and what in the pool is foreign or not as the journal has it.

import { command, el, empty, mark, openDetail, opener, setText, show, table } from "./dom.js";
import { call } from "./store.js";
import { clock, plural, size } from "./words.js";

const images = new Map();
const MOST_ROWS = 500;

export async function loadImages() {
  const found = (await call("DescribeImages")).images;
  images.clear();
  for (const image of found) images.set(image.id, image);
  draw();
}

export async function loadImage(id) {
  try {
    const { images: [image] } = await call("DescribeImages", { id });
    if (image.id === id) images.set(id, image);
  } catch (error) {
    if (error.message !== "not found") throw error;
    images.delete(id);
  }
  draw();
}

const STATES = { complete: ["good", "✓"], error: ["bad", "✕"] };

function state(image) {
  const [kind, sign] = STATES[image.status] ?? ["warn", "↓"];
  const { progress } = image;
  const far = progress ? ` ${progress.total_bytes ? `${Math.floor((100 * progress.done_bytes) / progress.total_bytes)} %` : size(progress.done_bytes)}` : "";
  const why = image.reason ? `: ${image.reason}` : "";
  return mark(kind, sign, `${image.status}${far}${why}${image.retired ? ", goes with its last clone" : ""}`);
}

function draw() {
  setText("images-count", String(images.size));
  const shown = [...images.values()].slice(0, MOST_ROWS);
  if (!shown.length) return show("image-list", empty("There are no images: imagestore image pull ID"));
  show("image-list", table([
    { title: "Image", cell: (image) => opener(`image-${image.id}`, [image.id, ...(image.aliases ?? [])].join(", "), () => openImage(image.id), `Image ${image.id}, details and commands`) },
    { title: "State", cell: state },
    { title: "Size", number: true, cell: (image) => (image.size_bytes === undefined ? "–" : size(image.size_bytes)) },
    { title: "Digest", cell: (image) => (image.sha256 ? mark("good", "✓", "verified") : mark("", "○", "none")) },
    { title: "Clones", number: true, cell: (image) => String(image.clones?.length ?? 0) },
  ], shown, "Images"), images.size > MOST_ROWS ? empty(`and ${plural(images.size - MOST_ROWS, "more image")}: imagestore image ls`) : null);
}

function openImage(id) {
  const image = images.get(id);
  if (!image) return;
  const facts = { State: image.status, Why: image.reason, Source: image.source, Snapshot: image.snapshot, "SHA-256": image.sha256,
    Requested: image.requested && clock(image.requested), Complete: image.completed && clock(image.completed),
    "Last used": image.last_used && clock(image.last_used) };
  const clones = image.clones ?? [];
  openDetail(`Image ${id}`,
    el("dl", { class: "facts" }, ...Object.entries(facts).filter(([, value]) => value).map(([name, value]) =>
      el("div", { class: "wide" }, el("dt", null, name), el("dd", null, value)))),
    el("h3", null, plural(clones.length, "clone")),
    clones.length ? el("ul", null, ...clones.slice(0, 100).map((clone) => el("li", null, clone))) : empty("Nothing is a clone of it."),
    el("h3", null, "To change it"),
    command(`imagestore guest create GUEST --disk image=${id}`),
    command(`imagestore image rm ${id}${clones.length ? " --when-unused" : ""}`));
}

const CHANGES = { lost: ["bad", "✕", "destroyed by others"], renamed: ["warn", "→", "renamed by others"], foreign: ["", "○", "not the store's"] };

export async function loadDrift() {
  const { datasets } = await call("GetDrift");
  setText("drift-count", String(datasets.length));
  if (!datasets.length) return show("drift-list", empty("The pool is as the journal says, and all of it is the store's."));
  const name = (dataset) => dataset.id.slice(dataset.id.indexOf("/") + 1);
  const rows = table([
    { title: "Dataset", cell: (dataset) => dataset.id },
    { title: "Kind", cell: (dataset) => dataset.kind },
    { title: "What", cell: (dataset) => mark(...CHANGES[dataset.change].slice(0, 2), CHANGES[dataset.change][2] + (dataset.now ? `, now ${dataset.now}` : "")) },
    { title: "Next", cell: (dataset) => el("code", null, dataset.change !== "foreign" ? "imagestore drift"
      : dataset.kind === "volume" ? `imagestore adopt ${name(dataset)} --dry-run` : "–") },
  ], datasets.slice(0, 200), "Foreign and drifted datasets");
  show("drift-list", rows, datasets.length > 200 ? empty(`and ${plural(datasets.length - 200, "more dataset")}: imagestore drift`) : null);
}
