// A disk's lineage as a picture: image, clone, snapshots. What it says stands beside it as text.

import { svg } from "./dom.js";
import { ago, size } from "./words.js";

const ROW = 34;
const BOX = { width: 240, height: 46 };
const STEP = 318;
const SHOWN = 10; // the newest so many snapshots; the list below the picture has all

const cut = (text, most) => (text.length > most ? `…${text.slice(1 - most)}` : text);

function box(x, y, kind, text, below) {
  return svg("g", { class: kind },
    svg("rect", { x, y, width: BOX.width, height: BOX.height, rx: 7 }),
    svg("text", { x: x + 10, y: y + 19 }, cut(text, 31)),
    svg("text", { x: x + 10, y: y + 36, class: "sub" }, cut(below, 38)));
}

const line = (x1, y1, x2, y2) => svg("path", { d: `M${x1} ${y1}C${(x1 + x2) / 2} ${y1} ${(x1 + x2) / 2} ${y2} ${x2} ${y2}` });

export function picture(disk) {
  const snapshots = disk.snapshots.slice(-SHOWN);
  const hidden = disk.snapshots.length - snapshots.length;
  const rows = snapshots.length + (hidden ? 1 : 0);
  const height = Math.max(BOX.height + 4, rows * ROW + 4);
  const middle = (height - BOX.height) / 2;
  const center = height / 2;
  const columns = [2, 2 + STEP, 2 + 2 * STEP].map((x) => (disk.origin ? x : x - STEP));
  const parts = [];
  if (disk.origin) {
    parts.push(line(columns[0] + BOX.width, center, columns[1], center),
      box(columns[0], middle, "image", disk.image ? `image ${disk.image}` : "origin", disk.origin));
  }
  const name = disk.id.split("/").pop();
  parts.push(box(columns[1], middle, "disk", name, `${size(disk.size_bytes)}, ${size(disk.written_bytes)} written`));
  snapshots.forEach((snapshot, index) => {
    const y = (index + (hidden ? 1 : 0)) * ROW + ROW / 2 + 2;
    parts.push(line(columns[1] + BOX.width, center, columns[2], y),
      svg("g", { class: "snapshot" }, svg("rect", { x: columns[2], y: y - 13, width: BOX.width, height: 26, rx: 13 }),
        svg("text", { x: columns[2] + 12, y: y + 4.5 }, cut(`@${snapshot.id.split("@")[1]}`, 20)),
        svg("text", { x: columns[2] + BOX.width - 12, y: y + 4.5, class: "sub", "text-anchor": "end" }, ago(snapshot.taken))));
  });
  if (hidden) parts.push(svg("text", { x: columns[2] + 12, y: ROW / 2 + 6, class: "sub" }, `${hidden} older snapshots`));
  const from = disk.origin ? `clone of ${disk.origin}` : "made blank";
  return svg("svg", { class: "lineage", role: "img", viewBox: `0 0 884 ${height}`,
    "aria-label": `${disk.id}: ${from}; ${disk.snapshots.length} snapshots` }, ...parts);
}
