/* The page is built, and answers the pointer and the keyboard. */

function fillTiles() {
  const tiles = Array.from({ length: maps.clusters }, (_, cluster) => {
    const input = make("input", {
      type: "radio",
      name: "cluster",
      value: cluster,
      ariaLabel: `Cluster ${clusterName(cluster)}`,
    });
    // Arrow keys click, too; a click on the chosen tile changes nothing, but shows the cluster again after a patch.
    input.addEventListener("click", () => chooseCluster(cluster));
    const canvas = make("canvas", { ariaHidden: "true" });
    drawMap(canvas, maps.gatheredBy(cluster), maps.columns, 1);
    const label = make(
      "label",
      {},
      input,
      make("span", { className: "tile" }, canvas, make("span", { className: "read" })),
      make("span", { className: "number", textContent: clusterName(cluster), ariaHidden: "true" }),
    );
    label.addEventListener("pointerenter", (event) => event.pointerType === "mouse" && hover({ mode: "cluster", cluster }));
    label.addEventListener("pointerleave", (event) => event.pointerType === "mouse" && hover(null));
    return label;
  });
  element("tiles").classList.toggle("many", maps.clusters > 24);
  element("tiles").replaceChildren(...tiles);
}

/* Up and down move by a row of tiles, not to the neighbor as they do for radio buttons. */
function moveTile(event) {
  const step = { ArrowUp: -1, ArrowDown: 1 }[event.key];
  if (!step) return;
  const labels = [...element("tiles").children];
  const perRow = labels.filter((label) => label.offsetTop === labels[0].offsetTop).length;
  const target = labels[labels.indexOf(event.target.parentElement) + step * perRow];
  event.preventDefault();
  if (target) {
    target.firstChild.focus();
    chooseCluster(labels.indexOf(target));
  }
}

function movePatch(event) {
  const [down, right] = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key] || [0, 0];
  if (!down && !right) return;
  event.preventDefault();
  const row = Math.min(Math.max(Math.floor(chosen.cell / maps.columns) + down, 0), maps.rows - 1);
  const column = Math.min(Math.max((chosen.cell % maps.columns) + right, 0), maps.columns - 1);
  choosePatch(row * maps.columns + column);
}

function cellAt(event) {
  const canvas = document.querySelector("#first canvas").getBoundingClientRect();
  const inside = (position, count) => Math.min(Math.max(Math.floor(position * count), 0), count - 1);
  const row = inside((event.clientY - canvas.top) / canvas.height, maps.rows);
  return row * maps.columns + inside((event.clientX - canvas.left) / canvas.width, maps.columns);
}

async function build() {
  if (typeof DecompressionStream === "undefined") {
    element("grid").textContent = "This page needs a browser of 2023 or later.";
    return;
  }
  element("measure").textContent = DATA.measure;
  element("kind").textContent = DATA.model === "detector" ? "Object" : "Class";
  document.querySelector(".ramp").style.background = `linear-gradient(to right, ${VIRIDIS.map((hex) => `#${hex}`).join(", ")})`;
  for (let row = 0; row < BARS; row++) {
    const button = make(
      "button",
      { type: "button" },
      make("span", { className: "name" }),
      make("span", { className: "track" }, make("i")),
      make("span", { className: "value" }),
    );
    element("bars").append(make("li", {}, button));
  }
  const most = Math.max(...DATA.pictures.map((each) => each.answer.values.length));
  for (let row = 0; row <= most; row++) {
    const track = make("span", { className: "track" }, make("i"), make("em"));
    element("rows").append(
      make("tr", {}, make("th", { scope: "row" }), make("td", {}, track), make("td", { className: "value" }), make("td")),
    );
  }
  fillControls();
  await choosePlace({ picture: 0 });
  listen();
}

/* Answers the pointer and the keyboard, once there are maps to show. */
function listen() {
  for (const button of document.querySelectorAll("#bars button")) {
    const cluster = () => Number(button.dataset.cluster);
    button.addEventListener("click", () => chooseCluster(cluster()));
    button.addEventListener(
      "pointerenter",
      (event) => event.pointerType === "mouse" && hover({ mode: "cluster", cluster: cluster() }),
    );
    button.addEventListener("pointerleave", (event) => event.pointerType === "mouse" && hover(null));
  }
  const frame = document.querySelector("#first .frame");
  frame.addEventListener(
    "pointermove",
    (event) => event.pointerType === "mouse" && hover({ mode: "patch", cell: cellAt(event) }),
  );
  frame.addEventListener("pointerleave", () => hovered && hover(null));
  frame.addEventListener("click", (event) => choosePatch(cellAt(event)));
  frame.addEventListener("keydown", movePatch);
  element("tiles").addEventListener("keydown", moveTile);
  element("off").addEventListener("click", () => {
    chosen.off = !chosen.off;
    show();
    announce();
  });
}

build();
