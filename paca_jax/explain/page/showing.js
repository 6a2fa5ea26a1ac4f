/* How the page shows what is chosen or hovered. */

function showPicture() {
  const { width, height, source, description, image, answer } = picture();
  const extent = maps.side * block().stride;
  for (const figure of [element("first"), element("second")]) {
    const frame = figure.querySelector(".frame");
    frame.style.aspectRatio = `${width} / ${height}`;
    frame.style.width = `${100 * Math.min(1, width / height)}%`;
    figure.querySelector("img").src = source;
    figure.querySelector("img").alt = description;
    // The last patches may reach beyond the picture.
    figure.querySelector("canvas").style.width = `${(100 * maps.columns * extent) / image[1]}%`;
    figure.querySelector("canvas").style.height = `${(100 * maps.rows * extent) / image[0]}%`;
  }
  const boxes = (answer.boxes || []).map(([left, top, right, bottom], row) => {
    const box = make("div", { className: "box" }, make("b", { textContent: row + 1 }));
    const [x, y, w, h] = [left, top, right - left, bottom - top].map((edge) => `${100 * edge}%`);
    Object.assign(box.style, { left: x, top: y, width: w, height: h });
    return box;
  });
  document.querySelector(".boxes").replaceChildren(...boxes);
  const [rows, columns] = maps.patches;
  const cells = maps.side > 1 ? `, shown in cells of ${maps.side} × ${maps.side}` : "";
  element("grid").textContent =
    `${titled(chosen.block.split("/")[0])}: ${rows} × ${columns} patches${cells}, ${maps.clusters} clusters. ` +
    "All numbers are from 0, as in the library.";
}

function show() {
  const { mode, cell, cluster, head } = shown();
  const read = maps.readBy(cell, head);
  const first = indexOfLargest(read);
  if (mode === "patch") {
    showMap(
      "first",
      maps.composed(cell, head),
      `What the marked ${maps.side > 1 ? "cell" : "patch"} draws on`,
      "Through all clusters.",
    );
    showMap(
      "second",
      maps.gatheredBy(first),
      `What its first cluster, ${clusterName(first)}, gathers`,
      `It reads ${percent(read[first])} from there.`,
    );
  } else {
    showMap("first", maps.gatheredBy(cluster), `What cluster ${clusterName(cluster)} gathers`, "The weights of patches in it.");
    showMap(
      "second",
      maps.readersOf(cluster, head),
      `Who reads cluster ${clusterName(cluster)}`,
      "The fraction that each patch reads from it.",
    );
  }
  showMarker(mode, cell);
  showBars(cell, read, cluster, mode);
  showTiles(read, mode === "patch" ? -1 : cluster);
  showCluster(cluster);
  showAnswer(cluster);
  document
    .querySelector("#first .frame")
    .setAttribute(
      "aria-label",
      `${picture().description}. Chosen: ${cellName(chosen.cell)} of ${maps.rows} rows and ${maps.columns} columns. ` +
        "Arrow keys move.",
    );
}

function showMap(id, weights, title, note) {
  drawMap(document.querySelector(`#${id} canvas`), weights, maps.columns, 0.3);
  document.querySelector(`#${id} figcaption b`).textContent = title;
  document.querySelector(`#${id} figcaption span`).textContent = `${note} Largest: ${percentOfMap(largestOf(weights))}.`;
}

function showMarker(mode, cell) {
  const marker = document.querySelector(".marker");
  const canvas = document.querySelector("#first canvas");
  const [wide, high] = [parseFloat(canvas.style.width) / maps.columns, parseFloat(canvas.style.height) / maps.rows];
  marker.hidden = mode !== "patch";
  Object.assign(marker.style, {
    left: `${(cell % maps.columns) * wide}%`,
    top: `${Math.floor(cell / maps.columns) * high}%`,
    width: `${wide}%`,
    height: `${high}%`,
  });
}

function showBars(cell, read, cluster, mode) {
  element("patch-title").textContent = `The ${cellName(cell)} reads`;
  const order = [...read.keys()].sort((a, b) => read[b] - read[a]).slice(0, BARS);
  order.forEach((each, row) => {
    const button = element("bars").children[row].firstChild;
    const [name, track, value] = button.children;
    button.dataset.cluster = each;
    name.textContent = `cluster ${clusterName(each)}`;
    track.firstChild.style.width = `${(100 * read[each]) / read[order[0]]}%`;
    value.textContent = percent(read[each]);
    button.setAttribute("aria-current", mode === "cluster" && each === cluster);
  });
  [...element("bars").children].forEach((item, row) => {
    item.hidden = row >= order.length;
  });
}

function showTiles(read, current) {
  const largest = largestOf(read);
  [...element("tiles").children].forEach((label, cluster) => {
    label.querySelector(".read").style.width = `${(100 * read[cluster]) / largest}%`;
    label.classList.toggle("shown", cluster === current);
    label.classList.toggle("removed", chosen.off && cluster === shown().cluster && Boolean(without()));
    label.firstChild.checked = cluster === chosen.cluster;
  });
}

/* The change of each row's value without a cluster, the largest first. */
function changesWithout(cluster) {
  const { answer } = picture();
  const changed = without()[cluster];
  return answer.values
    .map((value, row) => ({ name: DATA.classNames[answer.labels[row]], change: changed.values[row] - value }))
    .sort((a, b) => Math.abs(b.change) - Math.abs(a.change));
}

/* A difference in points; one that rounds to zero has no sign. */
function signed(change) {
  const sign = Math.abs(change) < 0.0005 ? "" : change < 0 ? "−" : "+";
  return sign + (100 * Math.abs(change)).toFixed(1);
}

function showCluster(cluster) {
  element("cluster-title").textContent = `Cluster ${clusterName(cluster)}`;
  const button = element("off");
  button.disabled = !without();
  button.setAttribute("aria-pressed", chosen.off);
  button.textContent = `Switch cluster ${cluster} off`;
  if (!without()) {
    element("serves").textContent = "The page holds no answers without the clusters of this block.";
    return;
  }
  const [first, second] = changesWithout(cluster).filter(({ change }) => Math.abs(change) >= 0.0005);
  const told = [first, second].filter(Boolean).map(({ name, change }) => `${name} ${signed(change)}`);
  element("serves").textContent = told.length
    ? `Without it, in points: ${told.join(", ")}.`
    : "Without it, the answer stays the same to 0.1 points.";
}

function showAnswer(cluster) {
  const { answer } = picture();
  const off = chosen.off && without();
  const now = off ? without()[cluster] : answer;
  element("answer-state").textContent = off
    ? `Without cluster ${clusterName(cluster)} of ${titled(stageOf(chosen.block))}; the line marks the answer with it.`
    : "With all clusters.";
  const rows = [...element("rows").children];
  const last = rows.pop();
  rows.forEach((each, row) => {
    each.hidden = row >= answer.values.length;
    if (each.hidden) return;
    const number = answer.boxes ? `${row + 1} ` : "";
    fillRow(each, `${number}${DATA.classNames[answer.labels[row]]}`, now.values[row], off ? answer.values[row] : null);
  });
  last.hidden = answer.other < 0 && now.other < 0;
  fillRow(last, now.other < 0 ? "no other" : `other: ${DATA.classNames[now.other]}`, now.otherValue, null);
}

function fillRow(row, name, value, before) {
  const [title, bar, number, change] = row.children;
  title.textContent = name;
  title.title = name;
  bar.querySelector("i").style.width = `${100 * value}%`;
  bar.querySelector("em").hidden = before === null;
  bar.querySelector("em").style.left = `${100 * (before || 0)}%`;
  number.textContent = percent(value);
  const difference = before === null ? 0 : value - before;
  change.textContent = before === null ? "" : signed(difference);
  change.className = Math.abs(difference) < 0.0005 ? "" : difference < 0 ? "less" : "more";
}

/* Tells a screen reader what a choice, other than one by hovering, has led to. */
function announce() {
  const read = maps.readBy(chosen.cell, chosen.head);
  const [first, second] = [...read.keys()].sort((a, b) => read[b] - read[a]);
  const parts =
    chosen.mode === "patch"
      ? [
          `The ${cellName(chosen.cell)} reads ${percent(read[first])} from cluster ${clusterName(first)}` +
            (second === undefined ? "." : ` and ${percent(read[second])} from cluster ${clusterName(second)}.`),
        ]
      : [`Cluster ${clusterName(chosen.cluster)}.`, element("serves").textContent];
  if (chosen.off) parts.push(element("answer-state").textContent);
  element("status").textContent = parts.join(" ");
}
